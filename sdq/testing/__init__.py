"""Doubles that ship with sdq: for tests that need a fault or speed, here and in your own code."""
