"""Files of today's event cameras, read through the optional package faery.

Prophesee EVT 2, EVT 3 and DAT, iniVation AEDAT 4, and Event Stream. What faery
leaves to its caller is done here: a file must say the size of its sensor, must
not end within an event, and the events that a camera sent before it first sent
the time have none.

Rows count from the top. So they do in the files of Prophesee and iniVation; in
an Event Stream file they count from the bottom, which faery turns round.

Sources: Prophesee, "Data encoding formats" of the Metavision SDK (EVT 2, EVT 3,
DAT); iniVation, "AEDAT file formats" (4.0); A. Marcireau, "Event Stream
specification"; faery 0.7.1.
"""

import os
import struct
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from mlf_jax.data.events.events import Events
from mlf_jax.data.events.recording_file import (
  RecordingError,
  RecordingFile,
  opened,
)
from mlf_jax.errors import UserError

try:
  import faery
except ModuleNotFoundError:
  raise UserError(
    'EVT, DAT, AEDAT 4 and Event Stream files need faery: pip install '
    '"mlf_jax[events]"'
  ) from None

_FORMATS = {
  'evt': 'Prophesee EVT',
  'dat': 'Prophesee DAT',
  'aedat': 'AEDAT 4',
  'es': 'Event Stream',
}
# A word of each version of Prophesee's formats.
_WORDS = {'evt2': '<u4', 'evt3': '<u2', 'dat1': '<u8', 'dat2': '<u8'}
_AEDAT4 = b'#!AER-DAT4.0\r\n'
# Words looked through at once for the first that sets the time.
_BLOCK = 1 << 15
# (width, height) that faery is to take where a file says no size.
_NO_SIZE = (1, 1)


def faery_pieces(
  path: str,
  file_type: str,
  sensor_size: tuple[int, int] | None,
  events_per_piece: int,
) -> Iterator[Events]:
  """Yields a recording in pieces, one at a time in memory.

  Prophesee's times that go back are held at the latest by faery. The times of
  an Event Stream begin where the file begins.

  Args:
    path: the file.
    file_type: 'evt', 'dat', 'aedat' or 'es'.
    sensor_size: (height, width); None if the file is to say it.
    events_per_piece: events in each piece but the last.

  Yields:
    At least one piece, empty if there are no events. `dropped` of the first is
    the number of events before the first time.

  Raises:
    RecordingError: the file is truncated, or not of this format.
    UserError: the file cannot be opened, or says no size or another one.
  """
  with opened(path) as source:
    untimed = 0
    if file_type == 'aedat':
      _check_aedat4(source)
    elif file_type in ('evt', 'dat'):
      untimed = _check_prophesee(source, path, file_type, sensor_size)
  fallback = sensor_size[::-1] if sensor_size else _NO_SIZE
  with _Reading(path, file_type):
    stream = faery.events_stream_from_file(
      path, file_type=file_type, dimensions_fallback=fallback
    )
    size = stream.dimensions()[::-1]
  if sensor_size not in (None, size):
    raise UserError(
      f'{path} was recorded by a sensor of {size[0]} x {size[1]} pixels, not '
      f'{sensor_size[0]} x {sensor_size[1]}, as sensor says'
    )
  waiting, number, dropped, skip = [], 0, untimed, untimed
  is_first = True
  packets = iter(stream)
  while True:
    with _Reading(path, file_type):
      packet = next(packets, None)
    if packet is None:
      break
    packet, skip = packet[skip:], max(0, skip - len(packet))
    while len(packet):
      part = packet[: events_per_piece - number]
      waiting.append(part)
      number += len(part)
      packet = packet[len(part) :]
      if number == events_per_piece:
        yield _events(waiting, size, dropped)
        waiting, number, dropped, is_first = [], 0, 0, False
  if number or is_first:
    yield _events(waiting, size, dropped)


def _events(packets, sensor_size, dropped) -> Events:
  """Joins faery's packets."""
  column = lambda field, dtype: (
    np.concatenate([packet[field] for packet in packets], dtype=dtype)
    if packets
    else np.empty(0, dtype)
  )
  return Events(
    # faery counts from 0 on, as unsigned numbers.
    column('t', np.uint64).view(np.int64),
    column('x', np.uint16),
    column('y', np.uint16),
    column('on', np.bool_).view(np.uint8),
    sensor_size,
    dropped,
  )


class _Reading:
  """Makes faery's errors `RecordingError` of one line that names the file."""

  def __init__(self, path: str, file_type: str):
    self._path, self._file_type = path, file_type

  def __enter__(self):
    pass

  def __exit__(self, kind, error, traceback):
    if isinstance(error, Exception):
      reason = str(error).strip().partition('\n')[0]
      raise RecordingError(
        f'{self._path}: damaged, truncated or no {_FORMATS[self._file_type]} '
        f'file ({reason})'
      ) from None


def _check_aedat4(source: RecordingFile) -> None:
  """Checks the header, which faery trusts: a damaged one ends the process."""
  if (magic := source.read(len(_AEDAT4))) != _AEDAT4:
    source.fail(f'this is no AEDAT 4 file: it starts with {magic!r}', 0)
  size = int.from_bytes(source.read(4), 'little')
  size = min(size, os.path.getsize(source.name))
  header = source.read(size)
  try:
    # A FlatBuffer: a table, whose second field is a 64-bit position and whose
    # third is a text, in XML.
    table = struct.unpack_from('<I', header)[0]
    vtable = table - struct.unpack_from('<i', header, table)[0]
    if not 0 <= vtable < len(header):
      raise struct.error
    *_, compression, position, text = struct.unpack_from('<5H', header, vtable)
    struct.unpack_from('<i', header, table + compression)
    struct.unpack_from('<q', header, table + position)
    start = table + text
    start += struct.unpack_from('<I', header, start)[0]
    (length,) = struct.unpack_from('<I', header, start)
    (text,) = struct.unpack_from(f'<{length}s', header, start + 4)
    ElementTree.fromstring(text.decode())
  except (struct.error, UnicodeDecodeError, ElementTree.ParseError):
    source.fail('its header is damaged or truncated', len(_AEDAT4))


def _check_prophesee(
  source: RecordingFile,
  path: str,
  file_type: str,
  sensor_size: tuple[int, int] | None,
) -> int:
  """Checks header and length; returns the number of events without a time."""
  what = _FORMATS[file_type]
  if source.peek(1) != b'%':
    source.fail(f'this is no {what} file: its header is missing', 0)
  make = {'evt': faery.evt, 'dat': faery.dat}[file_type].Decoder
  with _Reading(path, file_type):
    decoder = make(path, _NO_SIZE, None)
  if sensor_size is None and decoder.dimensions == _NO_SIZE:
    raise UserError(
      f'{path} does not say the size of its sensor: give sensor=(height, '
      'width), on the command line as HEIGHTxWIDTH, such as '
      '--config.data.sensor=720x1280'
    )
  if decoder.version not in _WORDS:
    source.fail('EVT 2.1 is not read, but EVT 2, EVT 3 and DAT are', 0)
  while source.peek(1) == b'%' and source.line().split() != [b'%', b'end']:
    pass
  if file_type == 'dat':
    source.read(2)  # Type and size of an event, which faery has checked.
  dtype = np.dtype(_WORDS[decoder.version])
  rest = (os.path.getsize(path) - source.offset) % dtype.itemsize
  if rest:
    source.fail(
      f'truncated: {rest} bytes where a word of {what} has {dtype.itemsize}',
      os.path.getsize(path) - rest,
    )
  return 0 if file_type == 'dat' else _count_untimed(source, dtype)


def _count_untimed(source: RecordingFile, dtype: np.dtype) -> int:
  """Number of events before the first word that sets the high bits of time."""
  untimed = 0
  for piece, _ in source.blocks(dtype.itemsize, _BLOCK):
    words = np.frombuffer(piece, dtype)
    # The type of a word is in its four highest bits.
    kinds = words >> (8 * dtype.itemsize - 4)
    times = np.flatnonzero(kinds == 0b1000)
    end = times[0] if times.size else len(words)
    words, kinds = words[:end], kinds[:end]
    if dtype.itemsize == 4:  # EVT 2: an event darker or brighter.
      untimed += np.count_nonzero(kinds <= 0b0001)
    else:  # EVT 3: one event, or one per bit that is set of 12 or of 8.
      untimed += np.count_nonzero(kinds == 0b0010)
      for kind, bits in ((0b0100, 0xFFF), (0b0101, 0xFF)):
        vectors = words[kinds == kind] & bits
        untimed += int(np.bitwise_count(vectors).sum())
    if times.size:
      break
  return untimed
