select rackhand.job_context($1)
