"""Does bfloat16 learn like float32? `python benchmarks/precision.py`.

Trains a configuration in both with several seeds. Prints training loss, test
loss and test accuracy at the evaluations as Markdown: mean and deviation over
the seeds, and the difference of the means in standard errors. Runs that are
finished are not trained again.
"""

import argparse
import json
import pathlib

import cases
import numpy as np

from mlf_jax.training import train

DTYPES = ('float32', 'bfloat16')


def main():
  """Trains what is not trained yet and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', default='digits')
  parser.add_argument('--seeds', type=cases.at_least(2), default=5)
  parser.add_argument(
    '--workdir', type=pathlib.Path, default=pathlib.Path('runs/precision')
  )
  parser.add_argument(
    '--steps', type=cases.at_least(0), default=0, help='0: all'
  )
  arguments = parser.parse_args()
  print(cases.machine(), flush=True)
  curves = {
    dtype: np.array(
      [_curve(dtype, seed, arguments) for seed in range(arguments.seeds)]
    )
    for dtype in DTYPES
  }
  names = 'train/loss', 'test/loss', 'test/accuracy'
  print(f'\n{arguments.config}, {arguments.seeds} seeds\n')
  heads = [
    head
    for name in names
    for head in (*(f'{name}, {dtype}' for dtype in DTYPES), 'difference')
  ]
  print(f'| {" | ".join(["step", *heads])} |')
  print(f'| {" | ".join(["---"] * (1 + len(heads)))} |')
  for row, step in enumerate(curves['float32'][0, :, 0]):
    cells = []
    for column in range(1, 1 + len(names)):
      values = [curves[dtype][:, row, column] for dtype in DTYPES]
      means = [v.mean() for v in values]
      error = np.sqrt(sum(v.var(ddof=1) for v in values) / arguments.seeds)
      cells += [f'{v.mean():.4f} ± {v.std(ddof=1):.4f}' for v in values]
      cells.append(f'{(means[1] - means[0]) / max(error, 1e-12):+.1f}')
    print(f'| {" | ".join([f"{step:.0f}", *cells])} |')
  return 0


def _curve(dtype, seed, arguments):
  """Step, losses and accuracy at each evaluation of a run, [evaluation, 4]."""
  config = cases.configuration(arguments.config)
  config.model.dtype, config.seed = dtype, seed
  config.num_steps = arguments.steps
  workdir = arguments.workdir / f'{arguments.config}-{dtype}-seed{seed}'
  train(config, workdir=workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    [line[n] for n in ('step', 'train/loss', 'test/loss', 'test/accuracy')]
    for line in map(json.loads, lines)
    if 'test/loss' in line
  ]


if __name__ == '__main__':
  raise SystemExit(main())
