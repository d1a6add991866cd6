select rackhand.grant_delete($1)
