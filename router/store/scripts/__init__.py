"""Lua scripts as data, and the layouts of what pods and scripts pass to each other."""
