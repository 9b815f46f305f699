"""Work for worker processes, in a module that imports little."""

import os
import pathlib
import signal
import time


def note_process(path: pathlib.Path) -> None:
  """Writes the number of the process to a file, and takes its time."""
  path.write_text(str(os.getpid()))
  time.sleep(0.3)


def fail(number: int) -> None:
  raise ZeroDivisionError(f'{number} fails')


class PickyError(Exception):
  """An exception that cannot be unpickled."""

  def __init__(self, *, number):
    super().__init__(f'{number} is picky')


def be_picky(number: int) -> None:
  raise PickyError(number=number)


def chatter(number: int) -> None:
  os.write(1, b'Info: a library speaks')
  print(number)


def die(number: int) -> None:
  del number
  os.kill(os.getpid(), signal.SIGKILL)
