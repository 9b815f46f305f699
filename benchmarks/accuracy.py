"""Trains a configuration with several seeds: `python benchmarks/accuracy.py`.

Prints test accuracy and time of each run, with compilation, and their means.
Each run is a process of its own. The default is `configs/digits.py` with five
seeds; `--config=moving_digits` trains on the same digits as a simulated event
camera sees them.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import cases
import numpy as np


def main():
  """Runs the seeds one after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', default='digits')
  parser.add_argument('--seeds', type=int, default=5, help='how many, from 0')
  arguments = parser.parse_args()
  if arguments.seeds < 1:
    parser.error('--seeds must be at least 1')
  print(cases.machine(), flush=True)
  accuracies, seconds = [], []
  for seed in range(arguments.seeds):
    with tempfile.TemporaryDirectory() as workdir:
      began = time.monotonic()
      subprocess.run(
        [
          sys.executable,
          cases.REPOSITORY / 'train.py',
          f'--config={arguments.config}',
          f'--workdir={workdir}',
          f'--config.seed={seed}',
        ],
        check=True,
        stdout=subprocess.DEVNULL,
      )
      seconds.append(time.monotonic() - began)
      result = json.loads((pathlib.Path(workdir) / 'result.json').read_text())
    accuracies.append(result['test/accuracy'])
    print(
      f'seed {seed}  test/accuracy {accuracies[-1]:.4f}  {seconds[-1]:.0f} s',
      flush=True,
    )
  print(
    f'mean    test/accuracy {np.mean(accuracies):.4f}  {np.mean(seconds):.0f} s'
  )


if __name__ == '__main__':
  main()
