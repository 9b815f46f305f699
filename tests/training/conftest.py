"""A finished run, and quick compilation for the modules that ask for it."""

import pytest

from mlf_jax.training import train
from tests import quick
from tests.training import tiny


@pytest.fixture(scope='module')
def quick_compilation():
  """Not for programs that are started."""
  yield from quick.of_the_library()


@pytest.fixture(scope='module')
def finished(quick_compilation, tmp_path_factory):
  """A run of the tiny configuration, from beginning to end."""
  directory = tmp_path_factory.mktemp('finished')
  return directory, train(tiny.config(), workdir=directory)
