"""Values and rules of a dispatched task: its state, its attempts, and the results that move it."""
