select rackhand.user_create($1)
