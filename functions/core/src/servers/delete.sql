select rackhand.server_delete($1)
