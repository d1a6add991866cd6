select rackhand.site_key_set($1)
