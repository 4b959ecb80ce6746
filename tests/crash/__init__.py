"""Machinery that breaks links, brokers and power on purpose, and the tests that show what survives it."""
