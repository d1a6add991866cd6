select rackhand.job_control($1)
