select rackhand.password_reset_begin($1)
