"""Memory of the training step: `python benchmarks/memory.py`.

Prints, for the paper's networks, the temporaries of the compiled training step
(what it takes besides weights, state and batch; the compiler says so, nothing
is timed) in each memory mode, as a part of what two others take: the same
network whose neurons JAX differentiates through a scan of `neuron.step`, and
the same with ReLU in the place of the neurons. All have the compiler options
of a run; in brackets the former without them. Then what
`python -m mlf_jax memory` predicts for the configurations of these networks,
from smaller batches, and what the compiler says of the batch itself.
"""

import argparse

import cases

from mlf_jax.models import memory
from mlf_jax.training import footprint

# Samples of a batch whose memory is predicted, unless another is asked for.
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
    of_relu = cases.Case(constructor, shape, cases.relu)
    of_plain = cases.Case(constructor, shape, cases.plain_autodiff)
    relu = cases.temporaries(of_relu.compile_train(**options))
    plain = cases.temporaries(of_plain.compile_train(**options))
    untuned = cases.temporaries(of_plain.compile_train())
    print(f'{name}, batch {shape[0]}')
    print(
      f'  plain autodiff {plain:.0f} MB ({untuned:.0f}), ReLU {relu:.0f} MB'
    )
    for mode in memory.MODES:
      case = cases.Case(constructor, shape, memory=mode)
      taken = cases.temporaries(case.compile_train(**options))
      print(
        f'  {mode:8} {taken:4.0f} MB, / plain autodiff {taken / plain:.2f} '
        f'({taken / untuned:.2f}), / ReLU {taken / relu:.2f}'
      )
    config = cases.configuration(cases.CONFIGURATIONS[name])
    batch = arguments.batch or _BATCH
    for mode in memory.MODES:
      config.memory = mode
      predicted = footprint.predict(config, batch).bytes(batch)
      measured = footprint.measure(config, batch)
      print(
        f'  {mode:8} batch {batch}: predicted {predicted / 1e6:.0f} MB, '
        f'measured {measured / 1e6:.0f} MB, {predicted / measured - 1:+.1%}'
      )
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
