"""Starts a program as several processes of one run, on this machine.

The program is `train.py`, with small networks compiled quickly, the devices
that the environment names, and a signal to itself before a step:
`python -m tests.training.in_processes train ...`.
"""

import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from mlf_jax import cli, data
from tests import quick

# What the library of JAX's collectives on CPUs prints to stdout.
_GLOO = re.compile(r'^\[Gloo\] .*\n', re.MULTILINE)


class Ended(NamedTuple):
  """A process that has ended, with its exit code and output."""

  code: int
  out: str
  err: str


def start(
  count: int,
  *arguments: str | os.PathLike,
  module: str = 'tests.training.in_processes',
  devices: int = 1,
  signals: Mapping[int, tuple[int, int]] | None = None,
  slurm: bool = False,
  pause: float = 0,
  file_bytes: int = 0,
  own: Sequence[Sequence[str]] = (),
) -> list[subprocess.Popen]:
  """Starts the processes; with one, it is an ordinary program.

  Args:
    count: how many.
    *arguments: arguments of all of them.
    module: the program.
    devices: virtual devices of each process.
    signals: by the number of a process, the step before which it gets a signal,
      and the signal.
    pause: seconds between the starts of one process and the next.
    file_bytes: largest size of a file, beyond which writes fail as on a full
      disk; 0: any.
    slurm: the processes find each other, by what Slurm tells them.
    own: for each process further arguments.
  """
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  started = []
  for number in range(count):
    time.sleep(pause if number else 0)
    environment = {
      'DEVICES': f'{devices}',
      'FILE_BYTES': f'{file_bytes}',
      'SIGNAL': '{} {}'.format(*(signals or {}).get(number, (0, 0))),
      'XLA_FLAGS': quick.FLAGS,
    }
    place = ['--distributed']
    if slurm:
      environment |= {
        'SLURM_JOB_ID': f'{port}',
        'SLURM_STEP_NODELIST': '127.0.0.1',
        'SLURM_NTASKS': f'{count}',
        'SLURM_PROCID': f'{number}',
        'SLURM_LOCALID': f'{number}',
      }
    else:
      place += [
        f'--coordinator=127.0.0.1:{port}',
        *(f'--num_processes={count}', f'--process_id={number}'),
      ]
    started.append(
      subprocess.Popen(
        [
          *(sys.executable, '-m', module, *map(os.fspath, arguments)),
          *(place if count > 1 else ()),
          *(own[number] if own else ()),
        ],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return started


def wait(
  processes: Sequence[subprocess.Popen], timeout: float = 120
) -> list[Ended]:
  """Waits for the end of the processes, and kills those that do not end."""
  try:
    return [
      Ended(process.returncode, _GLOO.sub('', out), err)
      for process in processes
      for out, err in (process.communicate(timeout=timeout),)
    ]
  finally:
    for process in processes:
      process.kill()


def _main():
  jax.config.update('jax_num_cpu_devices', int(os.environ['DEVICES']))
  if file_bytes := int(os.environ['FILE_BYTES']):
    # Otherwise the signal would end the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
  signal_step, number = map(int, os.environ['SIGNAL'].split())
  train_batch = data.train_batch

  def batch_and_signal(split, batch_size, seed, step, **options):
    if number and step == signal_step:
      signal.raise_signal(number)
    return train_batch(split, batch_size, seed, step, **options)

  data.train_batch = batch_and_signal
  compilation = quick.of_the_library()
  next(compilation)
  return cli.main(sys.argv[1:])


if __name__ == '__main__':
  sys.exit(_main())
