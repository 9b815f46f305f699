"""Recordings of event cameras: every format, every way to spoil one."""

import contextlib
import gzip
import io
import itertools
import struct
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data import event_files
from mlf_jax.data.events import from_array
from mlf_jax.data.frames import to_frames
from mlf_jax.errors import UserError
from tests.data import recordings

READERS = {
  'aedat3': event_files.read_aedat,
  'aedat2': event_files.read_aedat,
  'n_mnist': event_files.read_n_mnist,
}
# Where the first event stands, what lies between two packets, and bytes an
# event.
EVENT_BYTES = {'aedat3': 8, 'aedat2': 8, 'n_mnist': 5}
HEADER = recordings.aedat3_header()
HEADER2 = recordings.aedat2([])
GOOD = [(5, 1, 2, 1), (7, 30, 0, 0), (7, 0, 33, 1), (900, 3, 4, 0)]
BLOCKS = st.sampled_from([1, 2, 3, 7, event_files._BLOCK])
NAME = 'folder/user01.aedat'


def write(name, events, **options):
  return getattr(recordings, name)(events, **options)


class Named(io.BytesIO):
  name = NAME


class Short(io.RawIOBase):
  """A file whose `read` returns a byte, two bytes, three, and over again."""

  def __init__(self, content):
    self._file = io.BytesIO(content)
    self._sizes = itertools.cycle([1, 2, 3])

  def read(self, size=-1):
    return self._file.read(min(size, next(self._sizes)))


def opened_path(content, folder):
  path = folder / 'recording'
  path.write_bytes(content)
  return path


@contextlib.contextmanager
def opened(way, content, folder):
  """`content` as something the readers take."""
  if way == 'path':
    yield opened_path(content, folder)
  elif way == 'text path':
    yield str(opened_path(content, folder))
  elif way == 'file':
    with open(opened_path(content, folder), 'rb') as file:
      yield file
  elif way == 'gzip':
    yield gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content)))
  else:
    yield {'memory': io.BytesIO, 'short': Short}[way](content)


WAYS = ('path', 'text path', 'file', 'gzip', 'memory', 'short')


def assert_holds(events, expected, sensor_size=(128, 128), dropped=0):
  assert (events.sensor_size, events.dropped) == (sensor_size, dropped)
  dtypes = (np.int64, np.uint16, np.uint16, np.uint8)
  for i, (name, dtype) in enumerate(zip('txyp', dtypes, strict=True)):
    column = getattr(events, name)
    assert column.dtype == dtype
    assert column.tolist() == [event[i] for event in expected]


def fails(content, problem, offset, read=event_files.read_aedat, **options):
  with pytest.raises(event_files.RecordingError) as info:
    read(Named(content), **options)
  message = str(info.value)
  assert isinstance(info.value, UserError)
  assert message.startswith(f'{NAME}: byte {offset}: ')
  assert problem in message
  assert '\n' not in message


starts = st.integers(0, 1000)


def event_lists(side, gap, start=starts, size=30):
  """(t, x, y, p) in order of time, `gap` microseconds apart at most."""
  gaps = st.one_of(st.integers(0, 3), st.integers(0, gap))
  place = st.integers(0, side - 1)
  parts = st.lists(
    st.tuples(gaps, place, place, st.integers(0, 1)), max_size=size
  )

  def summed(start, parts):
    times = itertools.accumulate(part[0] for part in parts)
    return [
      (start + t, *part[1:]) for t, part in zip(times, parts, strict=True)
    ]

  return st.builds(summed, start, parts)


numbers = st.sets(st.integers(0, 29), max_size=12)
# What other packets hold looks like polarity events, to be skipped all the
# same.
others = st.builds(
  recordings.packet3,
  st.integers(2, 300) | st.just(0),
  st.binary(max_size=60),
  st.just(1),
)


@settings(max_examples=60, deadline=None)
@given(
  events=event_lists(128, 3 << 31, st.sampled_from([0, 2**31 - 9, 2**33 - 1])),
  sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
  invalid=numbers,
  between=st.lists(others, max_size=6),
  lines=st.lists(
    st.text('#!abAERDT3.1 \r', max_size=20).map('#{}\n'.format), max_size=4
  ),
  block=BLOCKS,
  way=st.sampled_from(WAYS),
)
def test_aedat3_is_read_as_it_was_written(
  tmp_path_factory, events, sizes, invalid, between, lines, block, way
):
  content = recordings.aedat3(
    events, sizes, invalid=invalid, between=between, lines=lines
  )
  valid = [event for i, event in enumerate(events) if i not in invalid]
  with (
    mock.patch.object(event_files, '_BLOCK', block),
    opened(way, content, tmp_path_factory.getbasetemp()) as file,
  ):
    assert_holds(
      event_files.read_aedat(file), valid, dropped=len(events) - len(valid)
    )


@settings(max_examples=40, deadline=None)
@given(
  events=event_lists(128, 2**26, st.sampled_from([0, 2**31, 2**32 - 9])),
  special=numbers,
  lines=st.lists(
    st.text('#! ab\r', max_size=20).map('#{}\n'.format), max_size=4
  ),
  block=BLOCKS,
  way=st.sampled_from(WAYS),
)
def test_aedat2_is_read_as_it_was_written(
  tmp_path_factory, events, special, lines, block, way
):
  content = recordings.aedat2(events, special=special, lines=lines)
  kept = [event for i, event in enumerate(events) if i not in special]
  # What was lost before the first event that is kept cannot be known.
  lost = kept[0][0] // 2**32 * 2**32 if kept else 0
  expected = [(t - lost, *place) for t, *place in kept]
  with (
    mock.patch.object(event_files, '_BLOCK', block),
    opened(way, content, tmp_path_factory.getbasetemp()) as file,
  ):
    assert_holds(
      event_files.read_aedat(file), expected, dropped=len(events) - len(kept)
    )


@settings(max_examples=40, deadline=None)
@given(
  events=event_lists(34, 2**22 - 1),
  block=BLOCKS,
  way=st.sampled_from(WAYS),
)
def test_n_mnist_is_read_as_it_was_written(
  tmp_path_factory, events, block, way
):
  with (
    mock.patch.object(event_files, '_BLOCK', block),
    opened(
      way, recordings.n_mnist(events), tmp_path_factory.getbasetemp()
    ) as file,
  ):
    # A time above the first wrap is one of the recording's start.
    lost = events[0][0] // 2**23 * 2**23 if events else 0
    expected = [(t - lost, *place) for t, *place in events]
    assert_holds(event_files.read_n_mnist(file), expected, (34, 34))


@pytest.mark.parametrize(('name', 'wrap'), [('aedat2', 32), ('n_mnist', 23)])
@pytest.mark.parametrize('block', [1, 2, 3, event_files._BLOCK])
def test_gap_over_a_wrap_may_be_just_below_half_of_it(name, wrap, block):
  half = 2 ** (wrap - 1)
  times = [half + i * (half - 1) for i in range(9)]
  # A gap that does not meet the wrap may be longer.
  times = [0, *times]
  events = [(t, i, 2 * i, i % 2) for i, t in enumerate(times)]
  with mock.patch.object(event_files, '_BLOCK', block):
    read = READERS[name](io.BytesIO(write(name, events)))
  assert read.t.tolist() == times


def test_all_polarities_and_corners_of_the_sensor():
  corners = list(itertools.product([0, 127], [0, 127], [0, 1]))
  events = [(t, *corner) for t, corner in enumerate(corners)]
  for name in ('aedat3', 'aedat2'):
    read = event_files.read_aedat(io.BytesIO(write(name, events)))
    assert_holds(read, events)


def test_axes_and_bit_order_of_bytes_written_by_hand():
  # Valid and brighter, row 1, column 3, 258 us, overflow 1.
  packet = bytes.fromhex(
    '0100 0100 08000000 04000000 01000000'.replace(' ', '')
  )
  packet += bytes.fromhex('0100000001000000010000000700060002010000')
  read = event_files.read_aedat(io.BytesIO(HEADER + packet))
  assert_holds(read, [(2**31 + 258, 3, 1, 1)])
  # Row 1, column 127 - 3, brighter; time 258.
  content = HEADER2 + bytes.fromhex('0000010700000102')
  assert_holds(event_files.read_aedat(io.BytesIO(content)), [(258, 124, 1, 1)])
  content = bytes([7, 9, 0x81, 2, 3])
  assert_holds(
    event_files.read_n_mnist(io.BytesIO(content)),
    [(0x010203, 7, 9, 1)],
    (34, 34),
  )


@pytest.mark.parametrize(
  ('content', 'read', 'sensor_size'),
  [
    (HEADER, event_files.read_aedat, (128, 128)),
    (
      HEADER + recordings.packet3(1, b'', 8),
      event_files.read_aedat,
      (128, 128),
    ),
    (HEADER2, event_files.read_aedat, (128, 128)),
    (b'#!AER-DAT2.0\n', event_files.read_aedat, (128, 128)),
    (b'', event_files.read_n_mnist, (34, 34)),
  ],
)
def test_no_events_are_no_error(content, read, sensor_size):
  events = read(io.BytesIO(content))
  assert_holds(events, [], sensor_size)
  assert_holds(events.between(0, 10), [], sensor_size)
  assert len(events) == events.nbytes == len(events.to_array()) == 0


def test_events_all_dropped_are_no_error():
  content = recordings.aedat3(GOOD, invalid=range(4))
  assert_holds(event_files.read_aedat(io.BytesIO(content)), [], dropped=4)
  content = recordings.aedat2(GOOD, special=range(4))
  assert_holds(event_files.read_aedat(io.BytesIO(content)), [], dropped=4)


def test_parts_of_a_recording_are_views():
  content = recordings.aedat3(GOOD)
  events = event_files.read_aedat(io.BytesIO(content))
  part = events.between(7, 900)
  assert_holds(part, GOOD[1:3])
  assert np.shares_memory(part.t, events.t)
  assert_holds(events[1:], GOOD[1:])
  assert events.nbytes == 4 * 13


# Truncation. A cut is no error where a shorter recording ends.


def line_starts(header):
  lines = header.splitlines(keepends=True)
  return [0, *itertools.accumulate(map(len, lines))]


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_aedat3_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  sizes = (3, 1)
  content = recordings.aedat3(
    GOOD, sizes, between=[recordings.packet3(2, b'abcdef', 3)]
  )
  packets = [0, 28 + 6, 28 + 3 * 8, 28 + 8]
  packets = [len(HEADER) + end for end in itertools.accumulate(packets)]
  assert packets[-1] == len(content)
  for cut in range(len(content)):
    if cut < len('#!AER-DAT'):
      fails(content[:cut], 'no AEDAT file', 0)
    elif cut < len(HEADER):
      start = max(start for start in line_starts(HEADER) if start <= cut)
      fails(content[:cut], 'ends within its header', start)
    elif cut in packets:
      number = (0, 0, 3)[packets.index(cut)]
      read = event_files.read_aedat(io.BytesIO(content[:cut]))
      assert_holds(read, GOOD[:number])
    else:
      start = max(start for start in packets if start < cut)
      if cut < start + 28:
        fails(content[:cut], 'where a packet header has 28', start)
      else:
        fails(content[:cut], f'packet at byte {start} announces', cut)


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_aedat2_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  content, starts = recordings.aedat2(GOOD), line_starts(HEADER2)
  for cut in range(len(content)):
    number, rest = divmod(cut - len(HEADER2), 8)
    if cut < len('#!AER-DAT'):
      fails(content[:cut], 'no AEDAT file', 0)
    elif cut < len(HEADER2) and cut not in starts:
      start = max(start for start in starts if start < cut)
      fails(content[:cut], 'ends within its header', start)
    elif cut < len(HEADER2) or not rest:
      read = event_files.read_aedat(io.BytesIO(content[:cut]))
      assert_holds(read, GOOD[: max(0, number)])
    else:
      fails(content[:cut], f'truncated: {rest} bytes', cut - rest)


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_n_mnist_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  content, read = recordings.n_mnist(GOOD), event_files.read_n_mnist
  for cut in range(len(content)):
    number, rest = divmod(cut, 5)
    if rest:
      fails(content[:cut], f'truncated: {rest} bytes', cut - rest, read)
    else:
      assert_holds(read(io.BytesIO(content[:cut])), GOOD[:number], (34, 34))


@pytest.mark.parametrize('name', READERS)
def test_gzip_cut_anywhere_or_damaged(name):
  packed = gzip.compress(write(name, GOOD))
  for cut in range(1, len(packed)):
    damaged = packed[:cut] + bytes([packed[cut] ^ 0xFF]) + packed[cut + 1 :]
    for content in (packed[:cut], damaged):
      if content is damaged and cut < 10:
        continue  # Of the header of gzip not every byte matters.
      with pytest.raises(
        event_files.RecordingError, match=r'^recording: byte \d+: [^\n]*$'
      ):
        READERS[name](gzip.GzipFile(fileobj=io.BytesIO(content)))


# What stands at the beginning.


@pytest.mark.parametrize(
  ('content', 'problem', 'offset'),
  [
    (b'', 'it is empty', 0),
    (b'\x00' * 100, 'no AEDAT file', 0),
    (b'# a comment\r\n' + HEADER, 'no AEDAT file', 0),
    (b'\r\n' + HEADER, 'no AEDAT file', 0),
    (b'#!AER-DAT\r\n', 'no version', 0),
    (b'#!AER-DAT3\r\n', 'no version', 0),
    (b'#!AER-DAT3.1beta\r\n', 'no version', 0),
    (b'#!AER-DAT1.0\r\n', 'AEDAT 1.0 is unknown; known: 2.0, 3.1', 0),
    (b'#!AER-DAT4.0\r\n', 'AEDAT 4.0 is unknown', 0),
    (HEADER.replace(b'#!END-HEADER\r\n', b''), 'ends within its', 47),
    (b'#!AER-DAT3.1\n#a\nb\n#!END-HEADER\n', 'without #', 16),
    (b'#!AER-DAT3.1\n\n#!END-HEADER\n', 'without #', 13),
  ],
)
def test_wrong_beginning(content, problem, offset):
  fails(content, problem, offset)


def test_header_without_its_end_but_with_packets():
  content = recordings.aedat3(GOOD).replace(b'#!END-HEADER\r\n', b'')
  fails(content, '', len(HEADER) - len('#!END-HEADER\r\n'))


@pytest.mark.parametrize('version', ['2.0', '3.1'])
def test_header_line_that_never_ends(version):
  endless = b'a' * (1 << 20)
  first = f'#!AER-DAT{version}'.encode()
  fails(b'#' + endless, 'no AEDAT file', 0)
  fails(first + endless, 'line does not end', 0)
  fails(first + b'\r\n#' + endless, 'line does not end', len(first) + 2)


def test_one_format_taken_for_another():
  for name in ('aedat3', 'aedat2'):
    content = write(name, GOOD)
    for block in (1, event_files._BLOCK):
      with mock.patch.object(event_files, '_BLOCK', block):
        fails(content, '', 0, event_files.read_n_mnist)
  fails(write('aedat3', GOOD), 'AEDAT file', 0, event_files.read_n_mnist)
  fails(recordings.n_mnist(GOOD), 'no AEDAT file', 0)
  aedat3, aedat2 = recordings.aedat3(GOOD, (2,)), recordings.aedat2(GOOD)
  fails(aedat3.replace(b'3.1', b'2.0', 1), 'DVS128', len(HEADER))
  fails(aedat2.replace(b'2.0', b'3.1', 1), 'header', len(HEADER2))


# Impossible values. Packets of 3 events, so that most events are not where
# they would be without packets.


def offset_of(name, event):
  """Byte of an event of `write(name, events)`; AEDAT 3.1 in packets of 3."""
  offset = EVENT_BYTES[name] * event
  if name == 'aedat3':
    return offset + len(HEADER) + 28 * (event // 3 + 1)
  return offset + (len(HEADER2) if name == 'aedat2' else 0)


def options_of(name, dropped=()):
  return {
    'aedat3': {'packet_sizes': (3,), 'invalid': dropped},
    'aedat2': {'special': dropped},
    'n_mnist': {},
  }[name]


@settings(max_examples=80, deadline=None)
@given(
  name=st.sampled_from(list(READERS)),
  times=st.lists(st.integers(0, 9) | st.integers(0, 2**21), max_size=30),
  dropped=numbers,
  block=BLOCKS,
)
def test_times_in_any_order(name, times, dropped, block):
  if name == 'n_mnist':
    dropped = set()
  events = [(t, i, 33 - i, i % 2) for i, t in enumerate(times)]
  content = write(name, events, **options_of(name, dropped))
  kept = [i for i in range(len(events)) if i not in dropped]
  back = [i for j, i in itertools.pairwise(kept) if times[i] < times[j]]
  with mock.patch.object(event_files, '_BLOCK', block):
    read = READERS[name](io.BytesIO(content), backwards='sort')
    if back:
      fails(content, 'goes back', offset_of(name, back[0]), READERS[name])
  # Python's sort is stable: x tells which of two at the same time was first.
  assert_holds(
    read,
    sorted((events[i] for i in kept), key=lambda event: event[0]),
    read.sensor_size,
    len(events) - len(kept),
  )


def test_message_of_time_going_back_tells_what_to_do():
  events = [(10, 0, 0, 0), (9, 0, 0, 0)]
  fails(
    recordings.n_mnist(events),
    "from 10 to 9 us; events can be put in order of time by backwards='sort'",
    5,
    event_files.read_n_mnist,
  )


@settings(max_examples=60, deadline=None)
@given(
  name=st.sampled_from(['aedat3', 'n_mnist']),
  number=st.integers(0, 20),
  after=st.integers(0, 5),
  axis=st.sampled_from('xy'),
  beyond=st.integers(0, 200),
  dropped=numbers,
  block=BLOCKS,
)
def test_address_outside_the_sensor(
  name, number, after, axis, beyond, dropped, block
):
  side = {'aedat3': 128, 'n_mnist': 34}[name]
  events = [(t, 1, 2, 1) for t in range(number + 1 + after)]
  events[number] = {
    'x': (number, side + beyond, 2, 0),
    'y': (number, 1, side + beyond, 0),
  }[axis]
  dropped = dropped - {number}
  content = write(name, events, **options_of(name, dropped))
  problem = f'{axis} = {side + beyond} is outside the sensor, 0 to {side - 1}'
  with mock.patch.object(event_files, '_BLOCK', block):
    fails(content, problem, offset_of(name, number), READERS[name])


@pytest.mark.parametrize('bit', range(16, 32))
def test_address_outside_the_layout_of_a_dvs128(bit):
  content = bytearray(recordings.aedat2(GOOD))
  offset = offset_of('aedat2', 2)
  content[offset + 3 - bit // 8] |= 1 << bit % 8
  fails(bytes(content), 'outside the layout of a DVS128', offset)


@pytest.mark.parametrize(
  ('field', 'at'), [('<h', 0), ('<i', 4), ('<i', 12), ('<i', 20)]
)
@pytest.mark.parametrize('kind', [0, 1])
@pytest.mark.parametrize('value', [-1, -(1 << 15)])
def test_negative_entry_of_a_packet_header(field, at, kind, value):
  packet = bytearray(recordings.packet3(kind, b'\x01' * 8, 8))
  struct.pack_into(field, packet, at, value)
  before = recordings.aedat3(GOOD)
  fails(before + bytes(packet), 'negative entry', len(before))


@pytest.mark.parametrize('size', [0, 4, 7, 16, 2**31 - 1])
def test_polarity_events_have_eight_bytes(size):
  packet = recordings.packet3(1, b'\x01' * 16, size, 1)
  before = recordings.aedat3(GOOD)
  fails(before + packet, f'has 8 bytes, not {size}', len(before))


def test_negative_timestamp_in_a_packet():
  events = struct.pack('<IiIi', 1, 0, 1, -1)
  content = HEADER + recordings.packet3(1, events, 8)
  fails(content, 'negative', len(HEADER) + 28 + 8)


@pytest.mark.parametrize(
  ('kind', 'size'), [(1, 8), (2, 36), (3, 2**31 - 1), (0, 1)]
)
def test_announced_events_take_no_memory(kind, size):
  most = 2**31 - 1
  content = HEADER + recordings.packet3(kind, b'\x01' * 8, size, most)
  tracemalloc.start()
  fails(content, f'announces {most} events of {size} bytes', len(content))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1 << 20


def test_packets_without_bytes_are_skipped():
  most = 2**31 - 1
  content = recordings.aedat3(
    GOOD,
    (1,),
    between=[
      recordings.packet3(2, b'', 0, most),
      recordings.packet3(3, b'', most, 0),
      recordings.packet3(most % 2**15, b'', 0, 0, overflow=most),
    ],
  )
  assert_holds(event_files.read_aedat(io.BytesIO(content)), GOOD)


# What is no file of a recording at all.


@pytest.mark.parametrize('read', [*READERS.values()])
def test_folder_or_missing_file(read, tmp_path):
  for path in (tmp_path, tmp_path / 'missing', str(tmp_path / 'missing')):
    with pytest.raises(UserError) as info:
      read(path)
    assert str(info.value).startswith(f'{path} cannot be opened (')
    assert '\n' not in str(info.value)


def test_error_names_the_path(tmp_path):
  path = opened_path(b'12', tmp_path)
  for file in (path, str(path)):
    with pytest.raises(event_files.RecordingError) as info:
      event_files.read_n_mnist(file)
    assert str(info.value).startswith(f'{path}: byte 0: truncated')


def test_file_that_cannot_be_read():
  class Broken(Named):
    def read(self, size=-1):
      if self.tell() > 4:
        raise OSError(5, 'Input/output error')
      return super().read(min(size, 5))

  with pytest.raises(
    event_files.RecordingError, match=r'byte 5: cannot be read .*output error'
  ):
    event_files.read_n_mnist(Broken(recordings.n_mnist(GOOD)))


@pytest.mark.parametrize('name', READERS)
def test_unknown_choice_for_times_going_back(name):
  with pytest.raises(UserError, match="did you mean 'sort'"):
    READERS[name](io.BytesIO(write(name, GOOD)), backwards='sorted')


# Structured arrays, as the tonic library has them.


@settings(max_examples=25, deadline=None)
@given(
  events=event_lists(34, 2**40),
  order=st.permutations('txyp'),
  polarity=st.sampled_from(['?', 'u1', 'i8']),
)
def test_structured_array_back_and_forth(events, order, polarity):
  dtypes = {'t': 'i8', 'x': 'i2', 'y': 'u4', 'p': polarity}
  array = np.empty(len(events), [(field, dtypes[field]) for field in order])
  for i, field in enumerate('txyp'):
    array[field] = [event[i] for event in events]
  read = from_array(array, (34, 40))
  assert_holds(read, events, (34, 40))
  assert_holds(from_array(read.to_array(), (34, 40)), events, (34, 40))


def array_of(events, **dtypes):
  dtypes = {'t': 'i8', 'x': 'i2', 'y': 'i2', 'p': 'i1', **dtypes}
  return np.array(events, list(dtypes.items()))


@pytest.mark.parametrize(
  ('array', 'problem'),
  [
    (array_of(GOOD)[['t', 'x', 'p']], 'with fields t, x, p'),
    (np.zeros((3, 4), int), r'got shape \(3, 4\) with no fields'),
    (array_of(GOOD).reshape(2, 2), r'shape \(2, 2\)'),
    (array_of(GOOD, t='f8'), "'t' must hold integers, got float64"),
    (array_of(GOOD, x='f4'), "'x' must hold integers, got float32"),
    (array_of(GOOD, y='?'), "'y' must hold integers, got bool"),
    (array_of([*GOOD, (901, 0, 0, 2)]), 'event 4 has p = 2, outside 0 to 1'),
    (array_of([(0, 0, 0, -1)]), 'event 0 has p = -1'),
    (array_of([*GOOD, (901, 40, 0, 1)]), 'event 4 has x = 40, outside 0 to 39'),
    (array_of([(0, -1, 0, 1)]), 'event 0 has x = -1'),
    (array_of([(0, 39, 34, 1)]), 'event 0 has y = 34, outside 0 to 33'),
    (array_of([*GOOD, (899, 0, 0, 1)]), 'event 4 goes .*from 900 to 899 us'),
  ],
)
def test_wrong_structured_array(array, problem):
  with pytest.raises(UserError, match=problem) as info:
    from_array(array, (34, 40))
  assert '\n' not in str(info.value)


def test_advice_of_the_message_sorts_stably():
  array = array_of([(5, 9, 0, 1), (4, 8, 0, 1), (5, 3, 0, 0)])
  with pytest.raises(UserError) as info:
    from_array(array, (34, 40))
  advice = str(info.value).split('first, ')[1]
  ordered = eval(advice, {'array': array, 'np': np})
  assert from_array(ordered, (34, 40)).x.tolist() == [8, 9, 3]


@pytest.fixture
def tonic():
  return pytest.importorskip('tonic')


def many_events(side, number=500):
  rng = np.random.default_rng(0)
  times = np.sort(rng.integers(0, 300_000, number)).tolist()
  places = rng.integers(0, side, (number, 2)).tolist()
  return [(t, *place, t % 2) for t, place in zip(times, places, strict=True)]


def assert_same(events, array):
  assert len(events) == len(array)
  for field in 'txyp':
    np.testing.assert_array_equal(getattr(events, field), array[field])


def test_tonic_reads_the_same_from_aedat3(tonic, tmp_path, monkeypatch):
  # tonic heeds neither the valid bit nor the overflow counter nor the type of
  # a packet: only without them is there something to compare.
  path = tmp_path / 'user01.aedat'
  path.write_bytes(recordings.aedat3(many_events(128), (64, 3)))
  header = tonic.io.read_aedat_header_from_file
  assert header(path)[:2] == (3.1, len(HEADER))
  # Of three values it returns, its own readers expect two.
  monkeypatch.setattr(
    tonic.io, 'read_aedat_header_from_file', lambda name: header(name)[:2]
  )
  shape, array = tonic.io.read_dvs_ibm(path)
  assert shape == (128, 128)
  assert_same(event_files.read_aedat(path), array)


def test_tonic_reads_the_same_from_aedat2(tonic, tmp_path, monkeypatch):
  path = tmp_path / 'user01.aedat'
  path.write_bytes(recordings.aedat2(many_events(128)))
  header = tonic.io.read_aedat_header_from_file
  assert header(path)[:2] == (2.0, len(HEADER2))
  monkeypatch.setattr(
    tonic.io, 'read_aedat_header_from_file', lambda name: header(name)[:2]
  )
  _, array = tonic.io.read_dvs_128(path)
  # tonic's axes of this camera are swapped, and its columns not mirrored.
  array['x'], array['y'] = 127 - array['y'], array['x'].copy()
  assert_same(event_files.read_aedat(path), array)


def test_tonic_reads_the_same_from_n_mnist(tonic, tmp_path):
  path = tmp_path / '00001.bin'
  path.write_bytes(recordings.n_mnist(many_events(34)))
  array = tonic.io.read_mnist_file(path, tonic.io.events_struct)
  assert_same(event_files.read_n_mnist(path), array)


def test_transforms_of_tonic_take_and_give_our_events(tonic):
  content = recordings.n_mnist(many_events(34))
  events = event_files.read_n_mnist(io.BytesIO(content))
  dropped = tonic.transforms.DropEvent(p=0.3)(events.to_array())
  assert 0 < len(from_array(dropped, (34, 34))) < len(events)
  half = tonic.transforms.Downsample(spatial_factor=0.5)(events.to_array())
  assert from_array(half, (17, 17)).x.tolist() == [x // 2 for x in events.x]
  size = (34, 34, 2)
  frames = tonic.transforms.ToFrame(size, n_event_bins=5)(events.to_array())
  np.testing.assert_array_equal(
    np.moveaxis(frames, 1, -1), to_frames(events, 5, binning='count')
  )
