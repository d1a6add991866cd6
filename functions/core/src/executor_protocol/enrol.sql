select rackhand.executor_enrol($1)
