select rackhand.password_reset_create($1)
