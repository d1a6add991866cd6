select rackhand.seal_store($1)
