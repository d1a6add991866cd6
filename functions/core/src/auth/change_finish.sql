select rackhand.password_change_finish($1)
