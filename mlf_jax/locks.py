"""Temporary alias of `mlf_jax.data.io.exclusive`."""

from mlf_jax.data.io import exclusive as exclusive
