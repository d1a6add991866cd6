select rackhand.site_create($1)
