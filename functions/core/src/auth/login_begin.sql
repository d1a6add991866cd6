select rackhand.login_begin($1)
