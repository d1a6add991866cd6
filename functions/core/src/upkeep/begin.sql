select rackhand.upkeep_begin($1)
