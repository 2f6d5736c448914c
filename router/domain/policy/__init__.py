"""The language of policies: their model, and what reads, checks, compares and publishes a document."""
