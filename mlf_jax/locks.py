"""Folders that one process at a time works in."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from mlf_jax.errors import UserError


@contextlib.contextmanager
def exclusive(
  folder: pathlib.Path, name: str, work: str, otherwise: str
) -> Iterator[None]:
  """Makes a folder, if need be, and makes it this process's own until the end.

  The operating system gives it back even if the process is killed.

  Args:
    folder: the folder.
    name: what messages call it, 'the workdir' for instance.
    work: what processes do there, 'is training' for instance.
    otherwise: what to do where it cannot be had.

  Raises:
    UserError: it cannot be written, or another process has it.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT)
  except OSError as error:
    raise UserError(
      f'cannot write to {name} {folder}: {error.strerror}; {otherwise}'
    ) from None
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    os.close(lock)
    if not isinstance(error, BlockingIOError):
      raise UserError(
        f'cannot lock {name} {folder}: {error.strerror}; its file system has '
        f'no locks; {otherwise}'
      ) from None
    raise UserError(
      f'another process {work} in {folder}; wait for it or {otherwise}'
    ) from None
  try:
    yield
  finally:
    os.close(lock)
