select rackhand.user_list($1)
