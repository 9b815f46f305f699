"""A finished run, and quick compilation for the modules that ask for it."""

import contextlib
import shutil

import pytest

from mlf_jax.training import train
from tests import quick
from tests.training import tiny


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """A run of the small network, compiled quickly, from beginning to end."""
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
  yield from quick.of_the_library()
