select rackhand.grant_create($1)
