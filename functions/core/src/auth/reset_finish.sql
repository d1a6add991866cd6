select rackhand.password_reset_finish($1)
