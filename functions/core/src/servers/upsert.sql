select rackhand.servers_upsert($1)
