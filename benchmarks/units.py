"""Cost of each spiking unit: `python benchmarks/units.py`.

Prints, for one of the paper's networks with each unit in turn, the time of a
training step and of inference as a multiple of the same network with ReLU:
median and quartiles of the ratios turn by turn, in one process. Then the memory
of a training step besides its arguments, as a multiple of that with ReLU.
"""

import argparse

import cases

from mlf_jax import layers


def main():
  """Compiles the network with every unit, then times them in turns."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=7)
  parser.add_argument(
    '--network', choices=cases.NETWORKS, default=next(iter(cases.NETWORKS))
  )
  parser.add_argument(
    '--units', nargs='+', choices=layers.UNITS, default=list(layers.UNITS)
  )
  arguments = parser.parse_args()
  constructor, shape = cases.network(arguments.network)
  print(cases.machine())
  print(f'{arguments.network}, batch {shape[0]}; beside ReLU')
  options, training, inference, memory = cases.options(), {}, {}, {}
  for name in dict.fromkeys(['relu', *arguments.units]):
    case = cases.Case(constructor, shape, unit=layers.UNITS[name]())
    step = case.compile_train(**options)
    memory[name] = cases.temporaries(step)
    training[name] = case.trainer(step)
    inference[name] = case.evaluator(case.compile_infer(**options))
  training = cases.race(training, arguments.repetitions)
  inference = cases.race(inference, 2 * arguments.repetitions)
  for name in arguments.units:
    print(
      f'  {name:12} training {cases.ratio(training[name], training["relu"])}, '
      f'inference {cases.ratio(inference[name], inference["relu"])}, '
      f'memory {memory[name] / memory["relu"]:.2f}'
    )
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
