"""The policy language: the compiled model, and the modules that read, check, compare and describe documents.

`document` parses a whole policy. `tables`, `kinds`, `collections` and `durations` are the building blocks; `fields`,
`limits`, `fallbacks` and `extensions` define the sections with them. `vocabulary` has the closed sets of words. `model`
is the compiled policy that `decide.plan` uses.
"""
