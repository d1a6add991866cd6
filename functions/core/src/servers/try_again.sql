select rackhand.credential_try_again($1)
