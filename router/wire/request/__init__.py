"""A decide request: bytes of either form → the request, its identity and its fingerprint."""
