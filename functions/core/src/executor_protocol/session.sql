select rackhand.executor_session_start($1)
