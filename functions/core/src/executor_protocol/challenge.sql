select rackhand.executor_challenge($1)
