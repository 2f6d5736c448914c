"""What the store holds of each tenant: walking over it, counting it, decoding and measuring it."""
