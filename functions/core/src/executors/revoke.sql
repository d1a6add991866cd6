select rackhand.executor_revoke($1)
