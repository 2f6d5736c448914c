"""What pods sample of the fleet: live figures, limit usage and breakers, the number and size of keys in Redis."""
