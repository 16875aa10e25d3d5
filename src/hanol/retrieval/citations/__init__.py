"""Checks of what is said against the passages that are cited."""
