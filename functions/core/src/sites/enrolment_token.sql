select rackhand.enrolment_token_create($1)
