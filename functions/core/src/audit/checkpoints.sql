select rackhand.audit_checkpoints($1)
