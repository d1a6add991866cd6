select rackhand.refusals_add($1)
