"""`router selftest`: is this fleet, with these servers, set up right? Asked from outside, on a tenant of its own."""
