"""Every figure that needs a GPU, in one visit: `python benchmarks/gpu.py`.

Runs programs of this folder one after the other and writes what they print to
one text file as it comes. After `--minutes` the one that runs is stopped, and
what was not measured is named; `--parts` measures that another time. What one
part has compiled, the next ones read.

`--rehearse` runs the same parts with the smallest sizes, on any machine.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

FOLDER = pathlib.Path(__file__).parent
# What the aims need most comes first.
PARTS = {
  'kernels': 'kernels.py',
  'step': 'step.py --repetitions=21 --beside balanced',
  'neuron': 'neuron.py --values=1000000000 --timesteps=40 --levels=3',
  'start': 'startup.py --parts cifar10 --repetitions=2',
} | {
  f'peers_K{levels}': (
    f'peers.py --device=gpu --surrogate=arctan --steps=21 --levels={levels} '
    '--libraries mlf_jax:balanced spikingjelly spikingjelly:compiled snntorch'
  )
  for levels in (3, 1)
}
_SMALL = "--repetitions=2 --batch=1 --networks 'CIFAR10-DVS DS-14 T=10'"
REHEARSED = {
  'kernels': f'kernels.py --neurons=64 {_SMALL}',
  'step': f'step.py --beside balanced {_SMALL}',
  'neuron': 'neuron.py --values=1000 --timesteps=40 --levels=3 --repetitions=2',
  'start': 'startup.py --parts cifar10 --images=80 --repetitions=2',
} | {
  f'peers_K{levels}': (
    f'peers.py --surrogate=arctan --steps=1 --levels={levels} --batch=1 '
    '--networks cifar10_dvs --libraries mlf_jax:balanced spikingjelly'
  )
  for levels in (3, 1)
}


def main():
  """Runs the parts until the time is up."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--minutes', type=float, default=8.0)
  parser.add_argument(
    '--parts', nargs='+', choices=PARTS, default=list(PARTS), metavar='PART'
  )
  parser.add_argument(
    '--output', type=pathlib.Path, default=pathlib.Path('gpu.txt')
  )
  parser.add_argument('--rehearse', action='store_true')
  arguments = parser.parse_args()
  commands = REHEARSED if arguments.rehearse else PARTS
  end = time.monotonic() + 60 * arguments.minutes
  failed, waiting = [], list(arguments.parts)
  with (
    tempfile.TemporaryDirectory() as compiled,
    open(arguments.output, 'w') as file,
  ):
    environment = os.environ | {
      'JAX_COMPILATION_CACHE_DIR': compiled,
      'PYTHONUNBUFFERED': '1',
      # Some programs start others, which need a share of the memory, too.
      'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.4',
    }

    def tell(line):
      print(line, flush=True)
      print(line, file=file, flush=True)

    while waiting and time.monotonic() < end:
      part, began = waiting.pop(0), time.monotonic()
      tell(f'\n# {part}: python benchmarks/{commands[part]}\n')
      code = _run(commands[part], environment, end, tell)
      seconds = time.monotonic() - began
      outcome = 'took' if code == 0 else f'failed ({code}) after'
      if code is None:
        outcome = 'was stopped, because the time is up, after'
      tell(f'\n{part} {outcome} {seconds:.0f} s')
      if code != 0:
        failed.append(part)
    if waiting:
      tell(f'\nnot measured, because the time is up: {", ".join(waiting)}')
  return 1 if failed or waiting else 0


def _run(command, environment, end, tell):
  """Runs a program and passes its lines on; its exit code, None if stopped."""
  program, *options = shlex.split(command)
  process = subprocess.Popen(
    [sys.executable, FOLDER / program, *options],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )
  stopped = threading.Event()

  def kill():
    # With the processes that it has started.
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)

  def stop():
    stopped.set()
    kill()

  timer = threading.Timer(max(0, end - time.monotonic()), stop)
  timer.start()
  try:
    with process:
      for line in process.stdout:
        tell(line.rstrip('\n'))
  finally:
    timer.cancel()
    kill()
  return None if stopped.is_set() else process.returncode


if __name__ == '__main__':
  raise SystemExit(main())
