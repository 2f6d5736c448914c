"""Bounds of the histograms, in seconds and in rows."""

LATENCY = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
LONG = (*LATENCY, 2.0, 3.0, 4.0, 5.0, 10.0)
"""For durations of seconds: answers that wait for extensions."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
