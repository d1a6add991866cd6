select rackhand.executor_nonce($1)
