"""What the router does, told in terms of ports."""
