"""Kernels for GPUs beside XLA's loops: `python benchmarks/kernels.py`.

Compares `neuron.run` with the two: prints how many spikes differ, which must be
none, and how far gradients are apart, which must be rounding. Then prints the
time of a training step and of inference with kernels as a multiple of the time
with loops: median and quartiles of the ratios turn by turn, in one process.
Where there are no kernels, it says so, and both are the loops.
"""

import argparse
import contextlib
import itertools
import sys
from unittest import mock

import cases
import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax import neuron
from mlf_jax.neuron import _vjp

# Timesteps before, in and after the loop that the kernels have, and levels.
_TIMESTEPS = 1, 4, 10, 40
_LEVELS = 1, 3
# Largest difference of gradients, relative to the largest gradient.
_ROUNDING = {'float32': 1e-5, 'bfloat16': 2e-2}


def main():
  """Compares, then times one network after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=21)
  parser.add_argument(
    '--neurons', type=cases.at_least(1), default=2**20, help='to compare'
  )
  parser.add_argument(
    '--networks',
    nargs='*',
    choices=cases.NETWORKS,
    default=list(cases.NETWORKS),
  )
  parser.add_argument(
    '--batch', type=cases.at_least(1), help='samples, if not those of the table'
  )
  arguments = parser.parse_args()
  print(cases.machine())
  if not _vjp._has_gpu():
    print('no GPU on which the kernels run: both are loops')
  equal = [
    _compare(*case, arguments.neurons)
    for case in itertools.product(_TIMESTEPS, _LEVELS, _ROUNDING)
  ]
  for name in arguments.networks:
    constructor, shape = cases.network(name, arguments.batch)
    _time(name, constructor, shape, arguments.repetitions)
  if not all(equal):
    print('kernels and loops are not the same', file=sys.stderr)
  return 0 if all(equal) else 1


@contextlib.contextmanager
def _loops():
  """Functions that are traced in this context run in XLA's loops."""
  jax.clear_caches()
  with mock.patch.object(_vjp, '_gpu_kernels', lambda *unused: None):
    yield
  jax.clear_caches()


def _compare(time_steps, num_levels, dtype, neurons):
  """Prints how far apart the two are; returns whether they are the same."""
  thresholds = [0.6 + k for k in range(num_levels)]
  # This surrogate has a gradient everywhere.
  params = neuron.MLFParams(
    jnp.asarray(thresholds), jnp.asarray(0.25), surrogate='arctan'
  )
  keys = jax.random.split(jax.random.key(time_steps), 2)
  channels = min(neurons, 64)
  shape = time_steps, -(-neurons // channels), channels
  x, g = (jax.random.normal(key, shape, dtype) for key in keys)

  def both(params, x, g):
    spikes, pull = jax.vjp(lambda *of: neuron.run(*of)[1], params, x)
    return spikes, pull(g)

  spikes, gradients = jax.device_get(jax.jit(both)(params, x, g))
  with _loops():
    expected = jax.device_get(jax.jit(both)(params, x, g))
  different = int((spikes != expected[0]).sum())
  apart = [
    _relative(ours, theirs)
    for ours, theirs in zip(
      jax.tree.leaves(gradients), jax.tree.leaves(expected[1]), strict=True
    )
  ]
  print(
    f'T = {time_steps:2}, K = {num_levels}, {dtype:8}: {different} of '
    f'{spikes.size:,} spikes differ, gradients by {max(apart):.1e}',
    flush=True,
  )
  return not different and max(apart) <= _ROUNDING[dtype]


def _relative(value, expected):
  """The largest difference, relative to the largest expected value."""
  value, expected = (np.asarray(a, np.float64) for a in (value, expected))
  # A single timestep from rest says nothing about the decay.
  scale = np.abs(expected).max() or 1
  return np.abs(value - expected).max() / scale


def _time(name, constructor, shape, repetitions):
  """Prints the ratios of one network."""
  case, options = cases.Case(constructor, shape), cases.options()

  def runners():
    return {
      'training': case.trainer(case.compile_train(**options)),
      'inference': case.evaluator(case.compile_infer(**options)),
    }

  kernels = runners()
  with _loops():
    loops = runners()
  print(f'{name}, batch {shape[0]}')
  for what in kernels:
    seconds = cases.race(
      {'kernels': kernels[what], 'loops': loops[what]}, repetitions
    )
    print(
      f'  {what:9}  kernels / loops     '
      f'{cases.ratio(seconds["kernels"], seconds["loops"])}',
      flush=True,
    )


if __name__ == '__main__':
  raise SystemExit(main())
