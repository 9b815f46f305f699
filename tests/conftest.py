"""Settings under which every test runs."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest

# Eight devices on any machine, so that data parallelism is always tested.
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True)
def strict_promotion(request):
  """An accidental promotion is an error wherever the code is all ours.

  Not in training: optax's schedules mix integers and floats.
  """
  if 'training' in request.path.parts:
    yield
  else:
    with jax.numpy_dtype_promotion('strict'):
      yield


@pytest.fixture
def x64():
  """Runs the test in double precision."""
  with jax.enable_x64(True):
    yield
