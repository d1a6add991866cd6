select rackhand.upkeep_partitions($1)
