"""`router selftest`: checks from outside whether a fleet and its servers are set up correctly, with a tenant of its
own.
"""
