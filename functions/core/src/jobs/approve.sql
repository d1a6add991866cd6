select rackhand.job_approve($1)
