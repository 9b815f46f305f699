"""Kills training runs and compares what becomes of them: `python
benchmarks/faults.py`.

Each round trains a small DS-ResNet on real digits, stored in the layout of
CIFAR-10's archive so that the data have to be prepared first. The run is killed
again and again, at moments that a seed draws, and each time the same command
continues it. At the end its parameters, optimiser state and metrics (timings
aside) must equal, bit for bit, those of a run in as many processes that nobody
killed. Of two processes one gets the signal.
"""

import argparse
import collections
import io
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import cases
import jax
import numpy as np
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

from mlf_jax.training import default_config

TRAIN, TEST = 1280, 320
# Kinds of faults in the order in which a round goes through them.
KINDS = (
  'SIGKILL during data preparation',
  'SIGKILL at any moment',
  'SIGTERM at any moment',
  'SIGKILL during a save',
  'SIGKILL at any moment',
)
# A process that has lost another one must stop within this time.
MOST_SECONDS = 60
_TEMPORARY = f'*{ocp.path.step.TMP_DIR_SUFFIX}*'


def get_config():
  """The configuration of the runs: this file is its configuration file."""
  config = default_config(data='cifar10')
  config.model.depth, config.model.widths = 8, (4, 6, 8)
  config.model.time_steps = 2
  config.batch_size, config.num_epochs = 32, 2
  config.eval_every_epochs, config.log_every = 0.25, 4
  config.augment.flip = False
  config.keep_checkpoints = 2
  return config


def write_archive(folder: pathlib.Path) -> None:
  """Writes digits, four times as wide and high, as CIFAR-10's archive."""
  digits = load_digits()
  order = np.random.default_rng(0).permutation(len(digits.target))
  wide = (digits.images * 15).astype(np.uint8).repeat(4, 1).repeat(4, 2)

  def records(numbers):
    return b''.join(
      bytes([digits.target[i]]) + 3 * wide[i].tobytes() for i in numbers
    )

  train, test = order[:TRAIN], order[TRAIN : TRAIN + TEST]
  members = {
    f'data_batch_{k + 1}.bin': records(part)
    for k, part in enumerate(np.array_split(train, 5))
  }
  members['test_batch.bin'] = records(test)
  members['batches.meta.txt'] = '\n'.join(map(str, range(10))).encode() + b'\n'
  with tarfile.open(folder / 'cifar-10-binary.tar.gz', 'w:gz') as archive:
    for name, content in members.items():
      info = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))


class Run:
  """A training run in a folder, started as often as it takes."""

  def __init__(self, folder: pathlib.Path, archive: pathlib.Path, count: int):
    """Names the folders of a run in `count` processes."""
    self.data_dir, self.workdir = folder / 'data', folder / 'run'
    self.checkpoints = self.workdir / 'checkpoints'
    self._archive, self._count, self._folder = archive, count, folder
    folder.mkdir()

  def start(self) -> list[subprocess.Popen]:
    """Starts the command of the run in all its processes."""
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      coordinator = f'127.0.0.1:{probe.getsockname()[1]}'
    output = open(self._folder / 'output', 'ab')  # noqa: SIM115
    started = []
    for number in range(self._count):
      command = [
        *(sys.executable, cases.REPOSITORY / 'train.py'),
        *(f'--config={__file__}', f'--workdir={self.workdir}'),
        f'--config.data.dir={self.data_dir}',
        f'--config.data.manual_dir={self._archive}',
      ]
      if self._count > 1:
        command += [
          *('--distributed', f'--coordinator={coordinator}'),
          *(f'--num_processes={self._count}', f'--process_id={number}'),
        ]
      started.append(
        subprocess.Popen(
          command,
          stdout=output,
          stderr=subprocess.STDOUT,
          # The configuration file imports what stands beside it.
          env=os.environ | {'PYTHONPATH': str(cases.REPOSITORY / 'benchmarks')},
        )
      )
    output.close()
    return started

  def output(self) -> str:
    """Returns the output of the processes so far."""
    return (self._folder / 'output').read_text()

  def step(self) -> int:
    """The last step that stands in the metrics."""
    path = self.workdir / 'metrics.jsonl'
    lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
    return json.loads(lines[-1])['step'] if lines else 0

  def content(self) -> tuple[list[dict], dict]:
    """Metrics without timings, and the state of the last checkpoint."""
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    metrics = [
      {k: v for k, v in line.items() if k != 'train/samples_per_second'}
      for line in map(json.loads, lines)
    ]
    last = max(int(p.name) for p in self.checkpoints.iterdir())
    with ocp.StandardCheckpointer() as reader:
      return metrics, reader.restore(self.checkpoints / f'{last}' / 'state')


def wait_for(condition, processes, seconds=300) -> bool:
  """Waits until a condition holds; False if a process ends before."""
  deadline = time.monotonic() + seconds
  while not condition():
    if any(process.poll() is not None for process in processes):
      return False
    if time.monotonic() > deadline:
      raise TimeoutError('the run does not get on')
    time.sleep(0.004)
  return True


def strike(run: Run, kind: str, draw: random.Random) -> float | None:
  """Starts a run and lets one fault happen.

  Returns:
    Seconds from the signal until the last process ended; None if the run was
    over before.
  """
  processes = run.start()
  victim = draw.choice(processes)
  if kind == 'SIGKILL during data preparation':
    folder = run.data_dir / 'cifar10'
    there = wait_for(folder.exists, processes)
    time.sleep(draw.uniform(0, 1.5))
  elif kind == 'SIGKILL during a save':
    before = run.step()
    there = wait_for(
      lambda: run.step() > before and any(run.checkpoints.glob(_TEMPORARY)),
      processes,
    )
    time.sleep(draw.uniform(0, 0.2))
  else:
    # Anywhere from the first step after the start to some way ahead.
    before = run.step() + draw.randrange(0, 20)
    there = wait_for(lambda: run.step() > before, processes)
    time.sleep(draw.uniform(0, 0.3))
  there = there and victim.poll() is None
  victim.send_signal(
    signal.SIGTERM if kind.startswith('SIGTERM') else signal.SIGKILL
  )
  began = time.monotonic()
  for process in processes:
    process.wait(MOST_SECONDS)
  seconds = time.monotonic() - began
  if there and kind.startswith('SIGTERM'):
    codes = {process.returncode for process in processes}
    # A signal near the last step finds the run finished.
    if codes == {0}:
      return None
    if codes != {128 + signal.SIGTERM}:
      raise RuntimeError(f'exit codes {codes} after SIGTERM:\n{run.output()}')
  return seconds if there else None


def same(one, other) -> bool:
  """True if metrics and states are equal, bit for bit."""
  return one[0] == other[0] and all(
    jax.tree.leaves(
      jax.tree.map(
        lambda a, b: a.dtype == b.dtype and a.tobytes() == b.tobytes(),
        one[1],
        other[1],
      )
    )
  )


def finish(run: Run) -> None:
  """Trains to the end."""
  for process in run.start():
    if process.wait(600):
      raise RuntimeError(f'a run does not finish:\n{run.output()}')


def main():
  """Prints a table of faults tried and survived."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
  parser.add_argument('--faults', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--processes', type=int, choices=(1, 2), help='in each round this many'
  )
  arguments = parser.parse_args()
  print(cases.machine(), flush=True)
  draw, began = random.Random(arguments.seed), time.monotonic()
  tried, survived = collections.Counter(), collections.Counter()
  with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    # A start compiles what an earlier one has compiled already.
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(root / 'cache'))
    write_archive(root)
    unharmed = {}
    left, number, slowest = arguments.faults, 0, 0.0
    while left:
      # Two rounds of five in two processes.
      count = arguments.processes or (2 if number % 5 in (1, 3) else 1)
      if count not in unharmed:
        calm = Run(root / f'calm-{count}', root, count)
        finish(calm)
        unharmed[count] = calm.content()
      run, faults = Run(root / f'{number}', root, count), []
      for kind in KINDS[:left]:
        seconds = strike(run, kind, draw)
        if seconds is not None:
          faults.append((kind, count))
          slowest = max(slowest, seconds)
      finish(run)
      good = same(run.content(), unharmed[count])
      tried.update(faults)
      survived.update(faults if good else ())
      left, number = left - len(faults), number + 1
      print(
        f'round {number}: {len(faults)} faults in {count} process'
        f'{"es" * (count > 1)}, {"the same" if good else "NOT THE SAME"}; '
        f'{left} faults to go, {time.monotonic() - began:.0f} s',
        flush=True,
      )
  print('\n| fault | processes | tried | survived |\n| --- | --- | --- | --- |')
  for (kind, count), times in sorted(tried.items()):
    print(f'| {kind} | {count} | {times} | {survived[kind, count]} |')
  print(
    f'\n{survived.total()} of {tried.total()} survived, bit for bit; the last '
    f'process ended at most {slowest:.0f} s after a signal; '
    f'{time.monotonic() - began:.0f} s'
  )
  return 0 if survived == tried else 1


if __name__ == '__main__':
  sys.exit(main())
