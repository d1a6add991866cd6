select rackhand.events_after($1)
