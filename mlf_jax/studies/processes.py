"""Commands side by side, each in a process with cores of its own."""

import collections
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

# Seconds between two looks at the processes.
_PATIENCE = 0.1
# Seconds of compilation from which a program is worth storing.
_WORTH_STORING = 0.3


def default_number() -> int:
  """Processes to start if nobody says: one per core, one on an accelerator.

  JAX is asked in another process, because it reserves most of an accelerator's
  memory in the one that asks.
  """
  program = 'import jax; print(jax.default_backend())'
  asked = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True
  )
  return len(_cores()) if asked.stdout.strip() == 'cpu' else 1


def run_all(
  commands: Mapping[str, Sequence[str]],
  outputs: Mapping[str, pathlib.Path],
  number: int,
  finished: Callable[[str, int], None],
) -> None:
  """Runs commands, so many at a time, in the order given.

  What one of them has compiled, the others read, such as a run with another
  seed. If this process is interrupted, by SIGINT or SIGTERM, the commands get a
  SIGTERM each and are waited for.

  Args:
    commands: arguments of each command, by name.
    outputs: file that gets the output of each command.
    number: how many run at a time.
    finished: called with the name and the exit code of each one that ended.

  Raises:
    KeyboardInterrupt: this process was interrupted.
  """
  # Programs for CPUs run only on the kind of processor they were compiled on,
  # so they do not outlive this call.
  with tempfile.TemporaryDirectory() as compiled:
    environment = {
      'JAX_COMPILATION_CACHE_DIR': compiled,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': str(_WORTH_STORING),
      **os.environ,
    }
    _run_all(commands, outputs, number, finished, environment)


def _run_all(commands, outputs, number, finished, environment):
  """`run_all` with the environment of the commands."""
  waiting, running = collections.deque(commands), {}
  number = min(number, len(commands))
  cores = _cores()
  shares = [cores[i::number] or cores[:1] for i in range(number)]

  def interrupt(*unused):
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGTERM, interrupt)
  try:
    while waiting or running:
      while waiting and shares:
        name, share = waiting.popleft(), shares.pop()
        process = _started(commands[name], outputs[name], share, environment)
        running[name] = process, share
      time.sleep(_PATIENCE)
      for name, (process, share) in list(running.items()):
        if (code := process.poll()) is not None:
          del running[name]
          shares.append(share)
          finished(name, code)
  finally:
    signal.signal(signal.SIGTERM, before)
    for process, _ in running.values():
      process.terminate()
    for process, _ in running.values():
      process.wait()


def _started(command, output, cores, environment):
  """A process on some of the cores; XLA starts a thread for each of these."""
  output.parent.mkdir(parents=True, exist_ok=True)
  with open(output, 'a') as file:
    everything = _cores()
    _use(cores)
    try:
      # Ctrl-C at the terminal is for this process, which passes it on.
      return subprocess.Popen(
        command,
        stdout=file,
        stderr=file,
        env=environment,
        start_new_session=True,
      )
    finally:
      _use(everything)


def _cores() -> list[int]:
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _use(cores):
  """Lets this thread, and the processes it starts, use some cores alone."""
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, cores)
