select rackhand.user_sessions_end($1)
