"""Redis: keys, scripts, and one typed method per script. No other package imports redis."""
