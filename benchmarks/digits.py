"""Trains `configs/digits.py` with five seeds: `python benchmarks/digits.py`.

Prints test accuracy and time of each run, compilation included, and their
mean. Each run is a process of its own.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

REPOSITORY = pathlib.Path(__file__).parents[1]
SEEDS = range(5)


def main():
  """Runs the five seeds one after the other."""
  print(
    f'Python {platform.python_version()}, JAX {jax.__version__}, '
    f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores'
  )
  accuracies, seconds = [], []
  for seed in SEEDS:
    with tempfile.TemporaryDirectory() as workdir:
      began = time.monotonic()
      subprocess.run(
        [
          sys.executable,
          REPOSITORY / 'train.py',
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
