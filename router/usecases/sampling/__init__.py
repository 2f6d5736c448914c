"""What pods measure of the fleet: live figures, limit usage, what each tenant stores."""
