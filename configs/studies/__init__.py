"""Studies, one file each, for `python -m mlf_jax study NAME`."""
