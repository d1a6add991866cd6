select rackhand.session_end($1)
