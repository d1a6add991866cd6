select rackhand.run_close($1)
