select rackhand.executor_lease($1)
