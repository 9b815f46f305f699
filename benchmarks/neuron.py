"""The neuron alone, in units of an addition: `python benchmarks/neuron.py`.

Prints, for ten million values, T = 40 and 4 timesteps and K = 3 and 1 levels,
or for others, the time of the forward pass, and of forward and backward
together, divided by the time to add a number to the same array: median and
quartiles of the ratios turn by turn, in one process. Then the temporaries of
the backward pass. An addition reads the array once and writes it once, so the
floor is 1 and 2.5.
"""

import argparse
import statistics

import cases
import jax

from mlf_jax import neuron

# Neurons in a row.
_ROW = 512


def main():
  """Measures one shape after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=21)
  whole = cases.at_least(1)
  parser.add_argument('--values', type=whole, default=10 * 2**20)
  parser.add_argument('--timesteps', type=whole, nargs='+', default=[40, 4])
  parser.add_argument('--levels', type=whole, nargs='+', default=[3, 1])
  arguments = parser.parse_args()
  print(cases.machine())
  print(f'about {arguments.values:,} float32 values')
  for time_steps in arguments.timesteps:
    for num_levels in arguments.levels:
      _measure(time_steps, num_levels, arguments)
  return 0


def _measure(time_steps, num_levels, arguments):
  params = neuron.MLFParams([0.6 + k for k in range(num_levels)])
  # A whole number of rows of neurons, as in a network.
  rows = max(1, arguments.values // (time_steps * _ROW))
  shape = (time_steps, rows * _ROW)
  x = jax.random.normal(jax.random.key(0), shape)
  g = jax.random.normal(jax.random.key(1), shape)

  def forward(x):
    return neuron.run(params, x)[1]

  def backward(x, g):
    return jax.vjp(forward, x)[1](g)

  def both(x, g):
    spikes, pull = jax.vjp(forward, x)
    return spikes, pull(g)

  add, forward = jax.jit(lambda x: x + 1), jax.jit(forward)
  both = jax.jit(both)
  seconds = cases.race(
    {
      'add': lambda: add(x),
      'forward': lambda: forward(x),
      'both': lambda: both(x, g),
    },
    arguments.repetitions,
  )
  temporaries = cases.temporaries(jax.jit(backward).lower(x, g).compile())
  print(
    f'T = {time_steps:3}, K = {num_levels}: '
    f'forward {cases.ratio(seconds["forward"], seconds["add"])}, '
    f'and backward {cases.ratio(seconds["both"], seconds["add"])}, '
    f'addition {1000 * statistics.median(seconds["add"]):.1f} ms, '
    f'temporaries {temporaries:.1f} MB'
  )


if __name__ == '__main__':
  raise SystemExit(main())
