"""The programs in `benchmarks/` run, on the smallest problem each can have."""

import functools
import importlib
import itertools
import json
import pathlib
import sys
import types

import pytest

from mlf_jax import models

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'

tiny = functools.partial(models.SpikingResNet, (1,), (4,), 3, time_steps=2)
FRAMES = (4, 2, 6, 6, 2)


@pytest.fixture
def benchmark(monkeypatch):
  """Imports a program by name."""
  monkeypatch.syspath_prepend(BENCHMARKS)
  yield importlib.import_module
  for path in BENCHMARKS.glob('*.py'):
    sys.modules.pop(path.stem, None)


@pytest.fixture
def main(benchmark, monkeypatch, capsys):
  """Runs a program with arguments; returns exit code and output."""

  def main(name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    code = benchmark(name).main()
    captured = capsys.readouterr()
    return code or 0, captured.out + captured.err

  return main


def test_neuron_runs(main):
  code, output = main('neuron', '--values=40', '--repetitions=2')
  assert (code, output.count('forward')) == (0, 4)


def test_step_runs(main, benchmark, monkeypatch):
  cases = benchmark('cases')
  monkeypatch.setitem(cases.NETWORKS, 'tiny', (tiny, FRAMES))
  code, output = main('step', '--networks=tiny', '--repetitions=2')
  assert (code, output.count('spiking / ReLU')) == (0, 2)


def test_plain_unit_computes_what_the_fast_one_computes(benchmark):
  import jax
  import numpy as np

  cases = benchmark('cases')
  fast, plain = cases.layers.MLF(), cases.PlainMLF()
  x = jax.random.normal(jax.random.key(0), (3, 5))
  state = fast.init_state({}, (5,), x.dtype)
  for ours, theirs in zip(
    jax.tree.leaves(fast.run({}, x, state)),
    jax.tree.leaves(plain.run({}, x, state)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
