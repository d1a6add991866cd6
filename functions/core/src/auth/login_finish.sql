select rackhand.login_finish($1)
