"""Readers of the file formats that recordings of event cameras come in.

Rows count from the top and columns from the left, whatever a format does.

Readers go through a file once, in blocks, and never loop over single events.
The sizes that a file announces are checked against its content before memory is
set aside for them.

Sources: iniVation, "AEDAT file formats" (3.1 and 2.0); G. Orchard et al.,
"Converting Static Image Datasets to Spiking Neuromorphic Datasets Using
Saccades", 2015 (N-MNIST).
"""

import bisect
import dataclasses
import re
import struct

import numpy as np

from mlf_jax.data.events.events import DTYPES, Events, require_sensor_size
from mlf_jax.data.events.recording_file import File, RecordingFile, opened
from mlf_jax.errors import UserError, unknown

# Events decoded at once by default: their columns fit the second-level cache.
_BLOCK = 1 << 15
# Header of an AEDAT 3.1 packet: type, source, size of an event, offset of its
# timestamp, overflow counter, capacity, number of events, number of valid ones.
_PACKET = struct.Struct('<hhiiiiii')
_POLARITY = 1
_POLARITY_BYTES = 8

# (height, width) of cameras that are known by name.
SENSORS = {'dvs128': (128, 128), 'davis240': (180, 240), 'davis346': (260, 346)}
Sensor = str | tuple[int, int]
DVS128 = SENSORS['dvs128']
N_MNIST = (34, 34)
BACKWARDS = ('error', 'sort')
# The row that stands for a clock marker, and what the clock gains by it.
_CLOCK_MARKER = 240
_CLOCK_US = 1 << 13

_MAGIC = b'#!AER-DAT'


@dataclasses.dataclass(frozen=True)
class _Layout:
  """Places of the fields in an address of AEDAT 2.0."""

  x: tuple[int, int]  # Number of the lowest bit, and number of bits.
  y: tuple[int, int]
  polarity: int
  dropped: int  # Bits of which one marks what is no change of light.
  unused: int = 0  # Bits that no address has.


_DAVIS = _Layout(x=(12, 10), y=(22, 9), polarity=11, dropped=1 << 31 | 1 << 10)
_LAYOUTS = {
  'dvs128': _Layout((1, 7), (8, 7), 0, dropped=1 << 15, unused=0xFFFF0000),
  'davis240': _DAVIS,
  'davis346': _DAVIS,
}


def size_of_sensor(sensor: Sensor) -> tuple[int, int]:
  """Returns (height, width) of a sensor, also of its name or 'HEIGHTxWIDTH'.

  Raises:
    UserError: there is no sensor of this name, or the size is impossible.
  """
  sensor = parse_sensor(sensor)
  if isinstance(sensor, str):
    if sensor not in SENSORS:
      raise unknown('sensor', sensor, (*SENSORS, 'HEIGHTxWIDTH'))
    return SENSORS[sensor]
  require_sensor_size(sensor)
  return tuple(sensor)


def parse_sensor(text: Sensor) -> Sensor:
  """A sensor as it is written on the command line.

  Args:
    text: 'HEIGHTxWIDTH', also with a comma or in brackets; a name or a size
      stays as it is.
  """
  if not isinstance(text, str):
    return text
  size = re.fullmatch(r'\(?\s*(\d+)\s*[x,]\s*(\d+)\s*\)?', text)
  return (int(size[1]), int(size[2])) if size else text


def read_aedat(
  file: File,
  *,
  sensor: Sensor = 'dvs128',
  backwards: str = 'error',
  block: int = _BLOCK,
) -> Events:
  """Reads a recording in AEDAT 3.1 or 2.0.

  The version stands in the first line of the file. Timestamps are continued
  where they wrap: in 3.1 by the packet's overflow counter, in 2.0 after 2^32
  microseconds. In 2.0 the y address counts from the bottom row and the x
  address from the right. About the polarity in 2.0 sources disagree: 1 is
  brighter in iniVation's description and here, 0 in the driver of ROS and some
  libraries. Frames, measurements of motion and triggers are left out.

  Args:
    file: path, or a binary file open for reading, which may be compressed.
    sensor: the camera, one of `SENSORS`, or in 3.1 also its (height, width). In
      2.0 the layout of an address depends on it.
    backwards: 'error', or 'sort': what to do if time goes back from an event
      to the next.
    block: events decoded at once.

  Returns:
    The events, on a sensor of this size.

  Raises:
    RecordingError: the file is truncated, or not of this format or sensor, or
      holds an impossible value. The message names the file and the byte.
    UserError: the file cannot be opened, or the sensor is unknown.
  """
  sensor = parse_sensor(sensor)
  size = size_of_sensor(sensor)
  with opened(file) as source:
    version = _version(source)
    if version == '3.1':
      columns = _Columns(source, size, backwards, block)
      _read_aedat3(source, columns)
    elif version == '2.0':
      if not isinstance(sensor, str):
        raise UserError(
          f'{source.name} is in AEDAT 2.0, where the layout of an address '
          f'depends on the camera: sensor must be its name, one of '
          f'{", ".join(_LAYOUTS)}, not {sensor}'
        )
      columns = _Columns(source, size, backwards, block, wrap=1 << 32)
      _read_aedat2(source, columns, sensor)
    else:
      source.fail(f'AEDAT {version} is unknown; known: 2.0, 3.1', 0)
    return columns.events()


def read_cifar10_dvs(
  file: File, *, backwards: str = 'error', block: int = _BLOCK
) -> Events:
  """Reads a recording of CIFAR10-DVS, in AEDAT 2.0, and turns it upright.

  The camera was turned by a quarter: the row of the scene is the column of the
  sensor, and its column is the sensor's row. Arguments, result and errors as of
  `read_aedat`.
  """
  events = read_aedat(file, backwards=backwards, block=block)
  return dataclasses.replace(events, x=events.y, y=events.x)


def read_n_mnist(
  file: File,
  *,
  sensor: Sensor = N_MNIST,
  backwards: str = 'error',
  block: int = _BLOCK,
) -> Events:
  """Reads a recording of N-MNIST or N-Caltech101, a `.bin` file.

  Five bytes per event: x, y, then one bit polarity and 23 bits of time in
  microseconds, which wrap after 8.4 seconds. An entry with y = 240 is no event:
  from it on, all timestamps are 8,192 microseconds later than the file says.
  Such clock markers are counted in `Events.dropped`.

  Args:
    file: path, or a binary file open for reading.
    sensor: (height, width) of the sensor, or the name of one of `SENSORS`;
      `(180, 240)` for N-Caltech101, whose recordings are that large at most.
    backwards: 'error', or 'sort': what to do if time goes back from an event
      to the next.
    block: events decoded at once.

  Returns:
    The events, on a sensor of this size.

  Raises:
    RecordingError: the file is truncated, or not of this format or sensor, or
      holds an impossible value. The message names the file and the byte.
    UserError: the file cannot be opened, or the sensor is unknown.
  """
  size = size_of_sensor(sensor)
  with opened(file) as source:
    columns = _Columns(source, size, backwards, block, wrap=1 << 23)
    if source.peek(len(_MAGIC)) == _MAGIC:
      source.fail('this is an AEDAT file, not one of N-MNIST', 0)
    gained = 0
    for piece, offset_of in source.blocks(5, block):
      raw = np.frombuffer(piece, np.uint8).reshape(-1, 5)
      high = raw[:, 2].astype(np.uint16)
      t = ((high & 0x7F).astype(np.int64) << 16) + (
        raw[:, 3].astype(np.uint16) << 8 | raw[:, 4]
      )
      x, y = raw[:, 0].astype(np.uint16), raw[:, 1].astype(np.uint16)
      is_marker = y == _CLOCK_MARKER
      if gained or is_marker.any():
        t += gained + _CLOCK_US * np.cumsum(is_marker)
        gained += _CLOCK_US * int(is_marker.sum())
      columns.append(t, x, y, raw[:, 2] >> 7, offset_of, keep=~is_marker)
    return columns.events()


class _Columns:
  """The columns of a recording while it is read, block by block."""

  def __init__(self, source, sensor_size, backwards, block, wrap=None):
    if backwards not in BACKWARDS:
      raise unknown('backwards', backwards, BACKWARDS)
    self._dropped = 0
    self.block = block
    self._source = source
    self._sensor_size = sensor_size
    self._backwards = backwards
    # Timestamps start again from 0 after this many microseconds.
    self._wrap = wrap
    self._wrapped = 0
    self._last = None
    self._sorted = True
    self._blocks = ([], [], [], [])

  def append(self, t, x, y, p, offset_of, keep=None):
    """Appends those events of a block that are to be kept, by default all.

    `offset_of(i)` is the byte of the i-th event.
    """
    if keep is not None and not keep.all():
      members, all_offsets = np.flatnonzero(keep), offset_of
      self._dropped += len(keep) - len(members)
      t, x, y, p = (column[members] for column in (t, x, y, p))
      offset_of = lambda i: all_offsets(members[i])
    if not len(t):
      return
    for name, values, size in zip('yx', (y, x), self._sensor_size, strict=True):
      if values.max() >= size:
        i = int(np.argmax(values >= size))
        self._source.fail(
          f'{name} = {values[i]} is outside the sensor, 0 to {size - 1}',
          offset_of(i),
        )
    t += self._wrapped
    last = t[0] if self._last is None else self._last
    if t[0] < last or (t[1:] < t[:-1]).any():
      self._goes_back(t, last, offset_of)
    self._last = t[-1]
    for blocks, column in zip(self._blocks, (t, x, y, p), strict=True):
      blocks.append(column)

  def _goes_back(self, t, last, offset_of):
    """Continues timestamps that wrap, in place; fails if others go back."""
    if self._wrap:
      wraps = np.diff(t, prepend=last) < -(self._wrap // 2)
      t += np.cumsum(wraps) * self._wrap
      self._wrapped += int(wraps.sum()) * self._wrap
    before = np.concatenate([[last], t[:-1]])
    back = np.flatnonzero(t < before)
    if back.size:
      self._sorted = False
      if self._backwards == 'error':
        i = int(back[0])
        self._source.fail(
          f'time goes back from {before[i]} to {t[i]} us; events can be put '
          "in order of time by backwards='sort'; np.save('sorted.npy', "
          "read_recording(path, sensor, backwards='sort').to_array()) makes a "
          'file of them',
          offset_of(i),
        )

  def events(self) -> Events:
    """Returns all events that were appended."""
    columns = []
    for blocks, dtype in zip(self._blocks, DTYPES.values(), strict=True):
      columns.append(np.concatenate(blocks) if blocks else np.empty(0, dtype))
      blocks.clear()  # Before the next column takes memory.
    if not self._sorted:
      order = np.argsort(columns[0], kind='stable')
      columns = [column[order] for column in columns]
    return Events(*columns, self._sensor_size, self._dropped)


def _version(source: RecordingFile) -> str:
  """Reads the version in the first line of an AEDAT file."""
  start = source.peek(len(_MAGIC))
  if start != _MAGIC:
    problem = f'it starts with {start!r}' if start else 'it is empty'
    source.fail(f'this is no AEDAT file: {problem}', 0)
  line = source.line()
  match = re.fullmatch(rb'#!AER-DAT(\d+\.\d+)\s*', line)
  if match is None:
    source.fail(f'the first line names no version of AEDAT: {line!r}', 0)
  return match[1].decode()


def _read_aedat3(source: RecordingFile, columns: _Columns) -> None:
  """Reads an AEDAT 3.1 file from its second line on."""
  while not (line := source.line()).startswith(b'#!END-HEADER'):
    if not line.startswith(b'#'):
      source.fail(
        'the header has a line without # before #!END-HEADER',
        source.offset - len(line),
      )
  packets = _PolarityPackets(source, columns)
  while header := source.read(_PACKET.size):
    start = source.offset - len(header)
    if len(header) < _PACKET.size:
      source.fail(
        f'truncated: {len(header)} bytes where a packet header has '
        f'{_PACKET.size}',
        start,
      )
    kind, _, size, _, overflow, _, number, _ = _PACKET.unpack(header)
    if min(kind, size, overflow, number) < 0:
      source.fail('this is no packet header: it has a negative entry', start)
    if kind == _POLARITY and size != _POLARITY_BYTES:
      source.fail(
        f'a polarity event has {_POLARITY_BYTES} bytes, not {size}', start
      )
    left = number * size
    while left:
      wanted = min(left, _POLARITY_BYTES * columns.block)
      if len(piece := source.read(wanted)) < wanted:
        source.fail(
          f'truncated: the packet at byte {start} announces {number} events '
          f'of {size} bytes',
          source.offset,
        )
      left -= wanted
      if kind == _POLARITY:
        packets.add(piece, overflow)
  packets.flush()


class _PolarityPackets:
  """Polarity packets of AEDAT 3.1, decoded many at once.

  Packets may be as short as one event: decoded one by one, setting up would
  cost more than decoding.
  """

  def __init__(self, source, columns):
    self._source = source
    self._columns = columns
    self._clear()

  def _clear(self):
    self._pieces, self._offsets, self._overflows = [], [], []
    # Number of the first event of each piece, and of the next piece.
    self._numbers, self._number = [], 0

  def add(self, piece: bytes, overflow: int):
    """Adds events, with the overflow counter of their packet."""
    self._pieces.append(piece)
    self._offsets.append(self._source.offset - len(piece))
    self._overflows.append(overflow)
    self._numbers.append(self._number)
    self._number += len(piece) // _POLARITY_BYTES
    # A piece itself takes as much memory as a few events.
    if self._number + 8 * len(self._pieces) >= self._columns.block:
      self.flush()

  def _offset_of(self, event: int) -> int:
    piece = bisect.bisect_right(self._numbers, event) - 1
    within = event - self._numbers[piece]
    return self._offsets[piece] + _POLARITY_BYTES * int(within)

  def flush(self):
    """Decodes the events that were added so far."""
    raw = np.frombuffer(b''.join(self._pieces), '<u4').reshape(-1, 2)
    # Contiguous copies: strided reads would slow down all that follows.
    address, t = raw[:, 0].astype(np.uint32), raw[:, 1].astype(np.int64)
    # The word holds up to 2^32 - 1, a timestamp at most 2^31 - 1.
    if t.size and t.max() >= 1 << 31:
      self._source.fail(
        'a timestamp is negative', self._offset_of(int(np.argmax(t >= 1 << 31)))
      )
    if len(set(self._overflows)) == 1:
      t += self._overflows[0] << 31
    elif self._overflows:
      counts = np.diff(self._numbers, append=self._number)
      t += np.repeat(np.array(self._overflows, np.int64) << 31, counts)
    self._columns.append(
      t,
      (address >> 17).astype(np.uint16),
      ((address >> 2) & 0x7FFF).astype(np.uint16),
      ((address >> 1) & 1).astype(np.uint8),
      self._offset_of,
      keep=(address & 1).astype(bool),
    )
    self._clear()


def _read_aedat2(source: RecordingFile, columns: _Columns, sensor: str) -> None:
  """Reads an AEDAT 2.0 file from its second line on."""
  layout, (height, width) = _LAYOUTS[sensor], SENSORS[sensor]
  # A byte '#' may also begin an event, of a DAVIS alone; none begins like these
  # lines, since its column would lie outside of the sensor.
  begins = (b'#',) if layout.unused else (b'#!', b'# ', b'#End Of ASCII')
  while source.peek(13).startswith(begins):
    source.line()
  field = lambda address, low, bits: address >> low & (1 << bits) - 1
  for piece, offset_of in source.blocks(8, columns.block):
    raw = np.frombuffer(piece, '>u4').reshape(-1, 2)
    address, t = raw[:, 0].astype(np.uint32), raw[:, 1].astype(np.int64)
    x, y = field(address, *layout.x), field(address, *layout.y)
    keep = address & np.uint32(layout.dropped) == 0
    # Seven bits are within 128 pixels. What is dropped may hold anything.
    outside = (
      address & np.uint32(layout.unused) > 0
      if layout.unused
      else keep & ((x >= width) | (y >= height))
    )
    if outside.any():
      i = int(np.argmax(outside))
      source.fail(
        f'address {address[i]:#x} is outside the layout of a {sensor.upper()}; '
        f'sensor names the camera: {", ".join(_LAYOUTS)}',
        offset_of(i),
      )
    columns.append(
      t,
      (width - 1 - x).astype(np.uint16),
      (height - 1 - y).astype(np.uint16),
      (address >> layout.polarity & 1).astype(np.uint8),
      offset_of,
      keep=keep,
    )
