select rackhand.job_retry_context($1)
