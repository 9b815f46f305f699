"""Data sets of static images."""
