"""Writes files atomically and reserves folders for one process."""

import contextlib
import fcntl
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator

from mlf_jax.errors import UserError

# Name of the file that `exclusive` locks.
LOCK = '.lock'


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
    with part.open('rb') as file:
      os.fsync(file.fileno())
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(
  folder: pathlib.Path, name: str, work: str, otherwise: str
) -> Iterator[None]:
  """Reserves a folder, made if needed, for this process until the end.

  The operating system releases it even if the process is killed.

  Args:
    folder: the folder.
    name: name of the folder in messages, such as 'the workdir'.
    work: what processes do there, such as 'is training'.
    otherwise: advice for when the folder cannot be had.

  Raises:
    UserError: it cannot be written, or another process has it.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
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
