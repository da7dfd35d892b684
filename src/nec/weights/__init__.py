"""Weights that ship with nec; README.md beside them says how they were made."""
