select rackhand.site_update($1)
