select rackhand.site_json(s) from rackhand.site s where s.id = ($1 ->> 'id')::uuid
