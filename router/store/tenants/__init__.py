"""The data of each tenant in the store: finding, counting, decoding and measuring it."""
