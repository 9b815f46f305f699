"""Worker processes that depend on nothing but the tasks they are sent.

`multiprocessing` would run the user's script again in every process, which
fails if the script has no guard, or fork a process with threads, such as one
with JAX. Here a worker is this file, run as a script: it imports only the
standard library until its first task. If the parent dies, the worker finishes
its task and exits.
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

Task = TypeVar('Task')


def run_tasks(
  work: Callable[[Task], None], tasks: list[Task], processes: int
) -> Iterator[Task]:
  """Calls a function with each task, several at a time.

  Args:
    work: a function at the top level of a module; returns nothing.
    tasks: its arguments, picklable.
    processes: number of processes; with one, or with one task, the work is done
      in this process, since starting another is slow.

  Yields:
    Each task when it is done, in no particular order.

  Raises:
    Exception: the exception of `work`, or `UserError` if a process was killed.
      Tasks in progress are given up, and no other is begun.
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
  started = []
  try:
    for _ in range(processes):
      worker = _Worker(work, waiting, done)
      started.append(worker)
      worker.start()
    for _ in tasks:
      task, error = done.get()
      if error is not None:
        raise error
      yield task
  finally:
    with contextlib.suppress(queue.Empty):
      while True:
        waiting.get_nowait()
    for worker in started:
      worker.stop()


class _Worker(threading.Thread):
  """A worker process, and the thread that sends it one task after another."""

  def __init__(self, work, waiting, done):
    super().__init__(daemon=True)
    self._work, self._waiting, self._done = work, waiting, done
    # Replies do not use standard output, on which any library may print.
    replies, reply_to = os.pipe()
    self._replies = os.fdopen(replies, 'rb')
    # Workers get the same import path.
    path = [p or os.getcwd() for p in sys.path if isinstance(p, str)]
    # Only this process handles an interruption; the mask is inherited.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
      self._process = subprocess.Popen(
        [sys.executable, '-P', __file__, str(reply_to)],
        stdin=subprocess.PIPE,
        stdout=2,
        pass_fds=[reply_to],
        env=os.environ | {'PYTHONPATH': os.pathsep.join(path)},
      )
    finally:
      os.close(reply_to)
      signal.pthread_sigmask(signal.SIG_SETMASK, mask)

  def run(self):
    """Sends tasks until there are none, or one fails."""
    while True:
      try:
        task = self._waiting.get_nowait()
      except queue.Empty:
        return
      try:
        pickle.dump((self._work, task), self._process.stdin)
        self._process.stdin.flush()
        error = pickle.load(self._replies)
      except (OSError, EOFError):
        from mlf_jax.errors import UserError

        error = UserError(
          'a process was killed, for want of memory perhaps: the same command '
          'goes on where it was'
        )
      except Exception as raised:  # An exception would be lost in a thread.
        error = raised
      self._done.put((task, error))
      if error is not None:
        return

  def stop(self):
    """Kills the process, even in the middle of a task."""
    self._process.kill()
    if self.ident is not None:
      self.join()
    self._replies.close()
    with contextlib.suppress(OSError):  # It may hold unsent data.
      self._process.stdin.close()
    self._process.wait()


def _serve(replies) -> None:
  """Carries out the tasks that arrive on standard input until its end."""
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
    try:
      reply = pickle.dumps(error)
      pickle.loads(reply)
    except Exception:  # Some exceptions cannot be pickled.
      reply = pickle.dumps(RuntimeError(f'{type(error).__name__}: {error}'))
    replies.write(reply)
    replies.flush()


if __name__ == '__main__':
  _serve(os.fdopen(int(sys.argv[1]), 'wb'))
