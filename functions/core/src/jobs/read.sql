select rackhand.job_json(j) from rackhand.job j where j.id = ($1 ->> 'id')::uuid
