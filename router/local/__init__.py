"""A small fleet on this machine: real servers, two pods, a worker, and a proof that everything works."""
