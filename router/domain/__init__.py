"""Pure values and functions: no clock, no dice, no I/O."""
