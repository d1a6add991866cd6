select rackhand.session_refresh($1)
