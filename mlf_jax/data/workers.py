"""Work in several processes that depend on nothing but what they are sent.

`multiprocessing` would run the script that started it again in every process,
which fails where that has no guard, or fork a process with threads, as one with
JAX has. Here a process is this file, run with `python -m`; it ends when its
parent does, however that one ends.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from mlf_jax.errors import UserError

Task = TypeVar('Task')


def run(
  work: Callable[[Task], None], tasks: list[Task], processes: int
) -> Iterator[Task]:
  """Does the work of all tasks, some at a time.

  Args:
    work: a function of a module; returns nothing.
    tasks: what it is called with; picklable.
    processes: how many tasks are worked on at once; one is done right here,
      since starting a process takes seconds.

  Yields:
    Each task when it is done, in no particular order.

  Raises:
    Exception: what `work` raised, or `UserError` if a process was killed. Tasks
      that are being worked on are given up; none is begun any more.
  """
  processes = min(processes, len(tasks))
  if processes < 2:
    for task in tasks:
      work(task)
      yield task
    return
  waiting, done = queue.SimpleQueue(), queue.SimpleQueue()
  for task in tasks:
    waiting.put(task)
  started = [_start() for _ in range(processes)]
  threads = [
    threading.Thread(target=_feed, args=(process, work, waiting, done))
    for process in started
  ]
  try:
    for thread in threads:
      thread.start()
    for _ in tasks:
      task, error = done.get()
      if error is not None:
        raise error
      yield task
  finally:
    for process in started:
      process.kill()
    for thread, process in zip(threads, started, strict=True):
      thread.join()
      process.stdout.close()
      with contextlib.suppress(OSError):  # What it did not take is lost.
        process.stdin.close()
      process.wait()


def _start() -> subprocess.Popen:
  # What this process can import, they can.
  path = os.pathsep.join(filter(None, sys.path))
  return subprocess.Popen(
    [sys.executable, '-m', __name__],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env=os.environ | {'PYTHONPATH': path},
  )


def _feed(process, work, waiting, done):
  """Sends a process one task after the other."""
  while True:
    try:
      task = waiting.get_nowait()
    except queue.Empty:
      return
    try:
      pickle.dump((work, task), process.stdin)
      process.stdin.flush()
      error = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
      error = UserError(
        'a process was killed, for want of memory perhaps: the same command '
        'goes on where it was'
      )
    done.put((task, error))
    if error is not None:
      return


def _serve() -> None:
  """Does what arrives on standard input until it ends."""
  # An interruption is for the parent to handle.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  replies, sys.stdout = sys.stdout.buffer, sys.stderr
  while True:
    try:
      work, task = pickle.load(sys.stdin.buffer)
    except EOFError:
      return
    error = None
    try:
      work(task)
    except Exception as raised:
      error = raised
    pickle.dump(error, replies)
    replies.flush()


if __name__ == '__main__':
  _serve()
