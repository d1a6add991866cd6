select rackhand.executor_report($1)
