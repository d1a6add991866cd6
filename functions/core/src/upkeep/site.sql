select rackhand.upkeep_site($1)
