select rackhand.me($1)
