"""The HTTP API: who asks (`askers`), the routes (`decide`, `decisions`), and the application around them (`door`)."""
