"""A small fleet on this machine: real servers, two pods, a worker, and the proof that all of it works."""
