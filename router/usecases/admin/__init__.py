"""Administrative acts and look-ups: who may do what, overrides by operators, purge, status."""
