"""How fast one pod is, what a decision costs, and beside what: see README in this folder."""
