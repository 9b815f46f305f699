"""Settings under which every test runs."""

import contextlib
import functools
import gc
import os
import shutil
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# One compilation cache for the workers and the programs that tests start, made
# anew by each run of the suite: most of its time would go into compiling the
# same networks again.
_OWN_CACHE = 'JAX_COMPILATION_CACHE_DIR' not in os.environ
if _OWN_CACHE:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

import jax
import pytest

# Eight devices on any machine, so that data parallelism is always tested.
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Tracing makes many objects, few of them garbage in a cycle: to look for that
# every 700 objects took 9 of the 121 s of `tests/models/test_models.py`.
gc.set_threshold(100_000, 20, 20)


def pytest_unconfigure():
  """Removes the cache; in workers it is not their own."""
  if _OWN_CACHE:
    shutil.rmtree(os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)


@pytest.fixture(autouse=True)
def strict_promotion(request):
  """An accidental promotion is an error wherever the code is all ours.

  Not where something is trained: optax's schedules mix integers and floats.
  """
  if {'training', 'cli'} & set(request.path.parts):
    yield
  else:
    with jax.numpy_dtype_promotion('strict'):
      yield


@pytest.fixture
def x64():
  """Runs the test in double precision."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def flax_pools():
  """Flax's average pool, in the VGG, divides by an integer."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """A run of the small network, compiled quickly, from beginning to end."""
  from mlf_jax.training import train
  from tests import quick
  from tests.training import tiny

  directory = tmp_path_factory.mktemp('finished')
  with contextlib.contextmanager(quick.of_the_library)():
    return directory, train(tiny.small(), workdir=directory)


@pytest.fixture
def copied(finished, tmp_path):
  """A copy of that run, to be changed."""
  return shutil.copytree(finished[0], tmp_path / 'run')


@pytest.fixture(scope='module')
def quick_compilation(finished):
  """Not for programs that are started; `finished` would end it."""
  from tests import quick

  yield from quick.of_the_library()


@pytest.fixture
def with_gpu(monkeypatch):
  """As if there were a GPU on which the kernels run."""
  from mlf_jax.neuron import _gpu, _vjp

  kernels = _gpu.forward, _gpu.backward
  monkeypatch.setattr(_vjp, '_has_gpu', lambda: True)
  yield
  for kernel in kernels:
    kernel.clear_cache()


@pytest.fixture
def interpreted(with_gpu, monkeypatch):
  """`neuron.run` computes what it would on a GPU."""
  from jax.experimental import pallas as pl

  monkeypatch.setattr(
    pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True)
  )
  monkeypatch.setattr(
    jax.lax,
    'platform_dependent',
    lambda *operands, default, **of: of.get('cuda', default)(*operands),
  )
