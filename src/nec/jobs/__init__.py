"""Verbs: what `nec` does with configs, files and the terminal."""
