"""Settings under which every test runs."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest

# Eight devices on any machine, so that data parallelism is always tested.
jax.config.update('jax_num_cpu_devices', 8)
# An accidental promotion is an error, in dtype and in rank.
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def x64():
  """Runs the test in double precision."""
  with jax.enable_x64(True):
    yield
