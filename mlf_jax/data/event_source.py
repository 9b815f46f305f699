"""A recording while it is read: a file that knows its place and its name."""

import contextlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from mlf_jax.errors import UserError

File = str | os.PathLike | BinaryIO

_MAX_HEADER_LINE = 1 << 12
# What a damaged file or member of an archive raises while it is read.
DAMAGED = (
  OSError,
  EOFError,
  zlib.error,
  lzma.LZMAError,
  zipfile.BadZipFile,
  tarfile.TarError,
)


class RecordingError(UserError):
  """A recording is not what its format promises; names file and byte."""


class Source:
  """A binary file that is read once, front to back, and knows its place."""

  def __init__(self, file: BinaryIO, name: str):
    """Reads `file`, which errors call `name`."""
    self.name = name
    # Of the next byte.
    self.offset = 0
    self._file = file
    self._ahead = b''

  def read(self, size: int) -> bytes:
    """Reads `size` bytes, fewer only at the end of the file."""
    content, self._ahead = self._ahead[:size], self._ahead[size:]
    try:
      while missing := size - len(content):
        if not (piece := self._file.read(missing)):
          break
        content += piece
    except DAMAGED as error:
      self.fail(f'cannot be read ({error})', self.offset + len(content))
    self.offset += len(content)
    return content

  def peek(self, size: int) -> bytes:
    """What `read` would return, which stays to be read."""
    content = self.read(size)
    self._unread(content)
    return content

  def line(self) -> bytes:
    """Reads up to and with the next line feed."""
    piece = self.read(_MAX_HEADER_LINE)
    end = piece.find(b'\n') + 1
    if not end:
      problem = (
        'a header line does not end'
        if len(piece) == _MAX_HEADER_LINE
        else 'the file ends within its header'
      )
      self.fail(problem, self.offset - len(piece))
    self._unread(piece[end:])
    return piece[:end]

  def fail(self, problem: str, offset: int) -> NoReturn:
    """Raises the error of this file."""
    raise RecordingError(f'{self.name}: byte {offset}: {problem}')

  def _unread(self, content):
    self._ahead = content + self._ahead
    self.offset -= len(content)


@contextlib.contextmanager
def opened(file: File) -> Iterator[Source]:
  """The source of a path, which is closed again, or of an open file."""
  if not isinstance(file, (str, os.PathLike)):
    try:
      is_binary = file.read(0) == b''
    except (AttributeError, ValueError):  # No file, or a closed one.
      is_binary = False
    if not is_binary:
      raise UserError(
        'a recording is a path or a binary file open for reading, not '
        f'{type(file).__name__}'
      )
    name = getattr(file, 'name', None)
    # It may also be the number of the file, or empty.
    yield Source(file, name if name and isinstance(name, str) else 'recording')
    return
  try:
    binary = open(os.path.expanduser(file), 'rb')  # noqa: SIM115
  except OSError as error:
    raise UserError(f'{file} cannot be opened ({error.strerror})') from error
  with binary:
    yield Source(binary, os.fspath(file))
