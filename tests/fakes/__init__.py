"""Fakes that tests of several rooms share."""
