"""Memory of the training step: `python benchmarks/memory.py`.

Prints the temporaries of the compiled training step, which is its memory
besides weights, state and batch, for the paper's networks in each memory mode.
They are compared with those of two networks that differ in the unit only: one
that JAX differentiates through a scan over timesteps, and ReLU. All are
compiled with the options of a run; figures in brackets are for the first of the
two without them. Then prints the prediction of `python -m mlf_jax memory` for
the same networks beside what the compiler says. Nothing is timed.
"""

import argparse

import cases

from mlf_jax import layers
from mlf_jax.layers import memory_modes
from mlf_jax.training import memory_estimate

# Default number of samples of the batch whose memory is predicted.
_BATCH = 8


def main():
  """Compiles one network after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--networks',
    nargs='+',
    choices=cases.NETWORKS,
    default=list(cases.NETWORKS),
  )
  parser.add_argument(
    '--batch', type=cases.at_least(4), help='samples, if not those of the table'
  )
  arguments = parser.parse_args()
  print(cases.machine())
  options = cases.options()
  for name in arguments.networks:
    constructor, shape = cases.network(name, arguments.batch)
    relu_case = cases.Case(constructor, shape, unit=layers.ReLU())
    plain_case = cases.Case(constructor, shape, unit=cases.PlainMLF())
    relu = cases.temporaries(relu_case.compile_train(**options))
    plain = cases.temporaries(plain_case.compile_train(**options))
    untuned = cases.temporaries(plain_case.compile_train())
    print(f'{name}, batch {shape[0]}')
    print(
      f'  plain autodiff {plain:.0f} MB ({untuned:.0f}), ReLU {relu:.0f} MB'
    )
    for mode in memory_modes.MODES:
      case = cases.Case(constructor, shape, memory=mode)
      taken = cases.temporaries(case.compile_train(**options))
      print(
        f'  {mode:8} {taken:4.0f} MB, / plain autodiff {taken / plain:.2f} '
        f'({taken / untuned:.2f}), / ReLU {taken / relu:.2f}'
      )
    config = cases.configuration(cases.CONFIGURATIONS[name])
    batch = arguments.batch or _BATCH
    for mode in memory_modes.MODES:
      config.memory = mode
      predicted = memory_estimate.estimate(config, batch).bytes(batch)
      measured = memory_estimate.measure(config, batch)
      print(
        f'  {mode:8} batch {batch}: predicted {predicted / 1e6:.0f} MB, '
        f'measured {measured / 1e6:.0f} MB, {predicted / measured - 1:+.1%}'
      )
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
