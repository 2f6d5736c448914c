"""The values of the router and the rules on them, as pure functions: no clock, no randomness, no I/O."""
