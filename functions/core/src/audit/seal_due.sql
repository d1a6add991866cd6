select rackhand.seal_due($1)
