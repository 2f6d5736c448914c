"""The policy language: its model, and the modules that read, check, compare and describe documents."""
