select rackhand.user_update($1)
