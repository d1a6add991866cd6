select rackhand.credential_attempt($1)
