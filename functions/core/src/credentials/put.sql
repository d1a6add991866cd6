select rackhand.credential_put($1)
