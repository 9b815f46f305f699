"""A recording while it is read: a file that knows its place and its name."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn

from mlf_jax.data import archives
from mlf_jax.errors import UserError

File = str | os.PathLike | BinaryIO

_MAX_HEADER_LINE = 1 << 12


class RecordingError(UserError):
  """A recording that breaks its format; the message names file and byte."""


class RecordingFile:
  """A binary file that is read once, front to back, and knows its place."""

  def __init__(self, file: BinaryIO, name: str):
    """Reads `file`, which errors call `name`."""
    self.name = name
    self.offset = 0  # Number of the next byte.
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
    except archives.DAMAGED as error:
      self.fail(f'cannot be read ({error})', self.offset + len(content))
    self.offset += len(content)
    return content

  def blocks(
    self, event_bytes: int, block: int
  ) -> Iterator[tuple[bytes, Callable[[int], int]]]:
    """Yields the events up to the end of the file, `block` at once.

    Yields:
      The bytes of the events, and a function from the number of an event in
      the block to its byte in the file.
    """
    while piece := self.read(event_bytes * block):
      start = self.offset - len(piece)
      if rest := len(piece) % event_bytes:
        self.fail(
          f'truncated: {rest} bytes where an event has {event_bytes}',
          self.offset - rest,
        )
      yield piece, lambda i, start=start: start + event_bytes * int(i)

  def peek(self, size: int) -> bytes:
    """Returns the next bytes without consuming them."""
    content = self.read(size)
    self._unread(content)
    return content

  def line(self) -> bytes:
    """Reads a line, with its line feed."""
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
    """Raises `RecordingError` for a byte of this file."""
    raise RecordingError(f'{self.name}: byte {offset}: {problem}')

  def _unread(self, content):
    self._ahead = content + self._ahead
    self.offset -= len(content)


@contextlib.contextmanager
def opened(file: File) -> Iterator[RecordingFile]:
  """Opens a path, and closes it again, or wraps a file that is open."""
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
    # The name may also be the number of the file, or empty.
    yield RecordingFile(
      file, name if name and isinstance(name, str) else 'recording'
    )
    return
  try:
    binary = open(os.path.expanduser(file), 'rb')  # noqa: SIM115
  except OSError as error:
    raise UserError(f'{file} cannot be opened ({error.strerror})') from error
  with binary:
    yield RecordingFile(binary, os.fspath(file))
