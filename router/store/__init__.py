"""Redis: keys, scripts, one typed method per script. The only room that knows redis."""
