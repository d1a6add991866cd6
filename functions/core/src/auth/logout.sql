select rackhand.logout($1)
