"""Configurations of experiments, one file each; see the README."""
