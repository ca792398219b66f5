"""Hostile input, kills and long runs as commands: ``python -m test.fuzz --help``."""
