"""Instructions per decision, counted by callgrind: `make bench-count`."""
