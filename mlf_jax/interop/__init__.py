"""Weights and networks to and from other frameworks."""
