"""Redis: keys, scripts, and one typed method per script. The only room that knows redis."""
