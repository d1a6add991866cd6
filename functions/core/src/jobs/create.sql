select rackhand.job_create($1)
