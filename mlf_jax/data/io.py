"""Writes files atomically and reserves folders for one process."""

import contextlib
import fcntl
import os
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator

from mlf_jax.errors import UserError

# Name of the file that `exclusive` locks.
LOCK = '.lock'
# What processes do that prepare data, and advice, for `exclusive`.
PREPARES = (
  'prepares data',
  'name another folder of prepared data, --config.data.dir=DIR, for `prepare` '
  '--data_dir=DIR',
)


def write_atomically(
  path: pathlib.Path, content: bytes | Callable[[pathlib.Path], None]
) -> None:
  """Writes a file that is either whole or not there.

  The content goes to a temporary file in the same folder, reaches the disk,
  and only then takes the name. Several processes may write the same file.

  Args:
    path: the file, replaced if it exists.
    content: the bytes, or a function that writes them to the path it is given.

  Raises:
    OSError: the file cannot be written.
  """
  part = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
  try:
    if isinstance(content, bytes):
      part.write_bytes(content)
    else:
      content(part)
    flush_to_disk(part)
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


def flush_to_disk(path: pathlib.Path) -> None:
  """Returns when the content of a file is on the disk."""
  with path.open('rb') as file:
    os.fsync(file.fileno())


class ReservationError(UserError):
  """A folder that this process cannot have for itself."""


@contextlib.contextmanager
def exclusive(
  folder: pathlib.Path,
  name: str,
  work: str,
  otherwise: str,
  *,
  wait: bool = False,
  needs_locks: bool = True,
) -> Iterator[bool]:
  """Reserves a folder, made if needed, for this process until the end.

  The operating system releases it even if the process is killed. The folder
  may be removed while it is reserved.

  Args:
    folder: the folder.
    name: name of the folder in messages, such as 'the workdir'.
    work: what processes do there, such as 'is training'.
    otherwise: advice for when the folder cannot be had.
    wait: waits for another process that has the folder, with a line on
      standard error, instead of refusing it.
    needs_locks: refuses a file system that has no locks, on which processes
      cannot exclude each other; otherwise the folder is taken all the same.

  Yields:
    True if no other process can have the folder, False if it has no locks.

  Raises:
    ReservationError: it cannot be written, or another process has it.
  """
  lock, is_alone = None, True
  while lock is None:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
      raise ReservationError(
        f'cannot write to {name} {folder}: {error.strerror}; {otherwise}'
      ) from None
    try:
      _lock(lock, f'another process {work} in {folder}' if wait else '')
    except BlockingIOError:
      os.close(lock)
      raise ReservationError(
        f'another process {work} in {folder}; wait for it or {otherwise}'
      ) from None
    except OSError as error:
      if needs_locks:
        os.close(lock)
        raise ReservationError(
          f'cannot lock {name} {folder}: {error.strerror}; its file system has '
          f'no locks; {otherwise}'
        ) from None
      is_alone = False
    except BaseException:  # Ctrl-C while it waits.
      os.close(lock)
      raise
    if not _is_at(lock, folder / LOCK):
      os.close(lock)
      lock = None
  try:
    yield is_alone
  finally:
    os.close(lock)


def _lock(file: int, waits_for: str) -> None:
  """Locks an open file; waits if `waits_for` tells what for."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    if not waits_for:
      raise
    print(f'{waits_for}: waiting for it', file=sys.stderr, flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: int, path: pathlib.Path) -> bool:
  """True unless the process that had the file before has removed it."""
  try:
    return os.path.samestat(os.fstat(file), path.stat())
  except FileNotFoundError:
    return False


def require_writable(folder: pathlib.Path) -> None:
  """Makes a folder and raises `UserError` if no file can be written to it."""
  probe = folder / f'{uuid.uuid4().hex}.part'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise UserError(
      f'{folder} cannot be written ({error.strerror}): name another folder'
      ' with --config.data.dir=DIR.'
    ) from error
