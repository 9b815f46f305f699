"""Do more levels wake dormant units? `python benchmarks/levels.py`.

Trains the networks of `configs/digits.py` and `configs/moving_digits.py` with K
= 1, 2 and 3 levels and several seeds, and looks inside each after training, on
all test samples. Prints Markdown tables, means over the seeds and, in brackets,
their smallest and largest: test accuracy, share of dormant (unit, timestep)
pairs, of units dormant throughout a sample, effective number of levels, and how
much of the gradient reaches the first layer. Runs that are finished are not
trained again.
"""

import argparse
import json
import pathlib

import cases
import numpy as np

from mlf_jax import activity
from mlf_jax.analysis.inspection import inspect_run
from mlf_jax.training import train

THRESHOLDS = (0.6, 1.6, 2.6)


def main():
  """Trains what is not trained yet, then measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--configs', nargs='+', default=['digits', 'moving_digits']
  )
  parser.add_argument('--levels', nargs='+', type=int, default=[1, 2, 3])
  parser.add_argument('--seeds', type=cases.at_least(1), default=3)
  parser.add_argument(
    '--workdir', type=pathlib.Path, default=pathlib.Path('runs/levels')
  )
  parser.add_argument(
    '--steps', type=cases.at_least(0), default=0, help='0: all'
  )
  arguments = parser.parse_args()
  print(cases.machine(), flush=True)
  for name in arguments.configs:
    by_levels = {
      num_levels: [
        _measured(name, num_levels, seed, arguments)
        for seed in range(arguments.seeds)
      ]
      for num_levels in arguments.levels
    }
    _print_tables(name, by_levels, arguments.seeds)
  return 0


def _measured(name, num_levels, seed, arguments):
  """Numbers of one run, which is trained unless it is finished."""
  config = cases.configuration(name)
  config.unit.thresholds = THRESHOLDS[:num_levels]
  config.seed = seed
  config.num_steps = arguments.steps
  workdir = arguments.workdir / f'{name}-K{num_levels}-seed{seed}'
  accuracy = train(config, workdir=workdir)['test/accuracy']
  stored = workdir / 'levels.json'
  if not stored.exists():
    inspected = inspect_run(workdir, checkpoint='last')
    layers, norms = inspected.activity, inspected.gradient_norms
    numbers = {
      'dormant': {p: layer.dormant_share for p, layer in layers.items()},
      'throughout': {
        p: layer.dormant_throughout_share for p, layer in layers.items()
      },
      'effective': {p: layer.effective_levels for p, layer in layers.items()},
      'rate': {p: layer.firing_rate for p, layer in layers.items()},
      'norms': norms,
      'last_to_first': activity.last_to_first(norms),
      'all': {
        'dormant': _overall(layers, 'dormant', lambda layer: layer.pairs),
        'throughout': _overall(
          layers,
          'dormant_throughout',
          lambda layer: layer.samples * layer.active.size,
        ),
      },
    }
    stored.write_text(json.dumps(numbers, indent=2) + '\n')
  return {'accuracy': accuracy, **json.loads(stored.read_text())}


def _overall(layers, count, total):
  """Share over the units of all layers together."""
  counts = sum(np.sum(getattr(layer, count)) for layer in layers.values())
  return float(counts / sum(total(layer) for layer in layers.values()))


def _print_tables(name, by_levels, num_seeds):
  """Prints a table of whole networks and one of their layers."""
  plural = 's' * (num_seeds > 1)
  print(f'\n{name}, {num_seeds} seed{plural}, {", ".join(_heads(by_levels))}\n')
  rows = {
    'test accuracy': lambda run: run['accuracy'],
    'dormant (unit, timestep) pairs': lambda run: run['all']['dormant'],
    'units dormant throughout a sample': lambda run: run['all']['throughout'],
    'gradient norm, first layer': lambda run: _ends(run)[0],
    'gradient norm, last hidden layer': lambda run: _ends(run)[1],
    'last / first': lambda run: run['last_to_first'],
  }
  _print_table('whole network', rows, by_levels)
  for title, key in (
    ('dormant pairs', 'dormant'),
    ('effective levels', 'effective'),
    ('firing rate', 'rate'),
    ('gradient norm', 'norms'),
  ):
    first = next(iter(by_levels.values()))[0]
    rows = {
      f'`{path}`': lambda run, key=key, path=path: run[key][path]
      for path in first[key]
    }
    print()
    _print_table(title, rows, by_levels)


def _heads(by_levels):
  return [f'K = {num_levels}' for num_levels in by_levels]


def _ends(run):
  """Gradient norms of the first layer, and of the last before the readout."""
  hidden = list(run['norms'].values())[:-1]
  return hidden[0], hidden[-1]


def _print_table(title, rows, by_levels):
  print(f'| {" | ".join([title, *_heads(by_levels)])} |')
  print(f'| {" | ".join(["---"] * (1 + len(by_levels)))} |')
  for label, number in rows.items():
    cells = [
      _cell([number(run) for run in runs]) for runs in by_levels.values()
    ]
    print(f'| {" | ".join([label, *cells])} |', flush=True)


def _cell(values):
  """Mean, and the smallest and largest value."""
  mean, low, high = (f'{f(values):.4g}' for f in (np.mean, np.min, np.max))
  return f'{mean} ({low} to {high})' if len(values) > 1 else mean


if __name__ == '__main__':
  raise SystemExit(main())
