select rackhand.upkeep($1)
