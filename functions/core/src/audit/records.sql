select rackhand.audit_records($1)
