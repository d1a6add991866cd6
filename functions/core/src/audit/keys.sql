select rackhand.audit_keys($1)
