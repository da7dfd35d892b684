"""Verbs: the only code that reads a config or prints."""
