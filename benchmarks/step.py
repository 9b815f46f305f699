"""Time of spiking networks relative to ReLU: `python benchmarks/step.py`.

Prints, for the paper's networks, the time of a training step (forward,
backward, update) and of inference as a multiple of the network whose neurons
are ReLUs, and the training step of each memory mode, and of blocks in loops, as
a multiple of the fastest: median and quartiles of the ratios turn by turn, in
one process. The network with ReLU is this repository's code, with the same
compiler options.
"""

import argparse
import statistics

import cases

from mlf_jax import layers
from mlf_jax.layers import memory_modes

# What a training step is also measured with.
_BESIDE = {
  **{mode: {'memory': mode} for mode in list(memory_modes.MODES)[1:]},
  'in loops': {'scan_blocks': True},
}


def main():
  """Measures one network after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=7)
  parser.add_argument(
    '--networks',
    nargs='+',
    choices=cases.NETWORKS,
    default=list(cases.NETWORKS),
  )
  parser.add_argument(
    '--batch', type=cases.at_least(1), help='samples, if not those of the table'
  )
  parser.add_argument(
    '--beside',
    nargs='*',
    choices=_BESIDE,
    default=list(_BESIDE),
    help='what is also compared with the fastest',
  )
  arguments = parser.parse_args()
  print(cases.machine())
  for name in arguments.networks:
    constructor, shape = cases.network(name, arguments.batch)
    _measure(name, constructor, shape, arguments)
  return 0


def _measure(name, constructor, shape, arguments):
  attributes = {'ReLU': {'unit': layers.ReLU()}, 'fastest': {}} | {
    name: _BESIDE[name] for name in arguments.beside
  }
  networks = {
    name: cases.Case(constructor, shape, **given)
    for name, given in attributes.items()
  }
  repetitions = arguments.repetitions
  options = cases.options()
  training = cases.race(
    {n: c.trainer(c.compile_train(**options)) for n, c in networks.items()},
    repetitions,
  )
  evaluating = cases.race(
    {
      n: networks[n].evaluator(networks[n].compile_infer(**options))
      for n in ('ReLU', 'fastest')
    },
    2 * repetitions,
  )
  print(f'{name}, batch {shape[0]}')
  for what, seconds in (('training', training), ('inference', evaluating)):
    milliseconds = 1000 * statistics.median(seconds['ReLU'])
    print(
      f'  {what:9}  spiking / ReLU     '
      f'{cases.ratio(seconds["fastest"], seconds["ReLU"])}, '
      f'ReLU {milliseconds:.0f} ms'
    )
  for mode in arguments.beside:
    print(
      f'  training   {mode} / fastest '
      f'{cases.ratio(training[mode], training["fastest"])}'
    )


if __name__ == '__main__':
  raise SystemExit(main())
