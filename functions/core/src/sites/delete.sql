select rackhand.site_delete($1)
