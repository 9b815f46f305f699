"""SHA-256 sums of files in a folder, as the command `sha256sum` lists them."""

import hashlib
import pathlib
from collections.abc import Sequence

from mlf_jax.data import io

SUMS = 'SHA256SUMS'


class DamagedError(Exception):
  """A file is missing or differs from its sum."""


def write(folder: pathlib.Path, items: Sequence[str]) -> None:
  """Lists the sums of all files below some subfolders in `SHA256SUMS`."""
  names = _names(folder, items)
  lines = (f'{_sha256(folder / name)}  {name}\n' for name in names)
  io.write_atomically(folder / SUMS, ''.join(lines).encode())


def verify(folder: pathlib.Path, items: Sequence[str]) -> None:
  """Compares the files below some subfolders with `SHA256SUMS`.

  Raises:
    DamagedError: a file is damaged, missing or not listed, or the list is.
    PermissionError: a file must not be read.
  """
  try:
    lines = (folder / SUMS).read_text().splitlines()
    sums = {name: digest for digest, name in (s.split('  ', 1) for s in lines)}
    for name in sorted(sums.keys() | {*_names(folder, items)}):
      if _sha256(folder / name) != sums.get(name):
        raise DamagedError(f'does not match its SHA-256 sum: {name}')
  except PermissionError:
    raise
  except (OSError, ValueError) as error:
    name = pathlib.Path(getattr(error, 'filename', None) or SUMS).name
    reason = getattr(error, 'strerror', None) or 'damaged'
    raise DamagedError(f'cannot be read: {name}: {reason}') from error
  if not sums:
    raise DamagedError(f'cannot be read: {SUMS} is empty')


def _names(folder, items):
  return sorted(
    str(path.relative_to(folder))
    for item in items
    for path in (folder / item).rglob('*')
    if path.is_file()
  )


def _sha256(path):
  # `downloads.checksum` is for a user's file: here a missing one is damage.
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
