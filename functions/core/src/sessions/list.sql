select rackhand.sessions($1)
