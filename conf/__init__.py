"""Hydra's configuration groups of nec, as package data."""
