select rackhand.password_change_begin($1)
