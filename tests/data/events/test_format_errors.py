"""Damaged recordings: each is an error that names the file and the byte."""

import functools
import io
import itertools
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data.events import RecordingError, formats
from mlf_jax.errors import UserError
from tests.data import recordings
from tests.data.reading import (
  BLOCKS,
  GOOD,
  HEADER,
  HEADER2,
  NAME,
  READERS,
  Named,
  assert_holds,
  blocks,
  fails,
  numbers,
  opened_path,
  write,
)

# --- Files that are cut short or damaged ---

every_block = pytest.mark.parametrize('block', BLOCKS)


HEADERS = {'aedat3': HEADER, 'aedat2': HEADER2, 'n_mnist': b''}
EVENT_BYTES = {'aedat3': 8, 'aedat2': 8, 'n_mnist': 5}
# Events of another type, then three and one of the recording.
PACKETS = {
  'packet_sizes': (3, 1),
  'between': [recordings.packet3(2, b'abc', 3)],
}
PACKET_STARTS = [
  len(HEADER) + start for start in (0, 31, 31 + 52, 31 + 52 + 36)
]


def after_cut(name, cut):
  """Events that are left after a cut, or the problem and its byte."""
  header = HEADERS[name]
  if cut < min(len('#!AER-DAT'), len(header)):
    return 'no AEDAT file', 0
  if cut < len(header):
    lines = itertools.accumulate(map(len, header.splitlines(keepends=True)))
    start = max(start for start in (0, *lines) if start <= cut)
    # The header of AEDAT 2.0 may end with any line.
    is_whole = name == 'aedat2' and start == cut
    return [] if is_whole else ('ends within its header', start)
  if name == 'aedat3':
    if cut in PACKET_STARTS:
      return GOOD[: (0, 0, 3)[PACKET_STARTS.index(cut)]]
    start = max(start for start in PACKET_STARTS if start < cut)
    if cut < start + 28:
      return 'where a packet header has 28', start
    return f'packet at byte {start} announces', cut
  number, rest = divmod(cut - len(header), EVENT_BYTES[name])
  return (f'truncated: {rest} bytes', cut - rest) if rest else GOOD[:number]


@every_block
@pytest.mark.parametrize('name', READERS)
def test_cut_anywhere(name, block):
  """A cut is no error if a shorter recording ends there."""
  content = write(name, GOOD, **(PACKETS if name == 'aedat3' else {}))
  for cut in range(len(content)):
    expected, read = after_cut(name, cut), READERS[name]
    if isinstance(expected, tuple):
      fails(content[:cut], *expected, read, block=block)
    else:
      events = read(io.BytesIO(content[:cut]), block=block)
      assert_holds(events, expected, events.sensor_size)


@pytest.mark.parametrize(
  'method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_member_of_a_zip(method, tmp_path):
  path = tmp_path / 'recordings.zip'
  # Not compressible: the bytes in the middle are those of the member.
  events = [(t, t * t % 31, t**3 % 29, t % 2) for t in range(2000)]
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr(NAME, recordings.aedat3(events))
  packed = bytearray(path.read_bytes())
  half = len(packed) // 2
  packed[half : half + 400] = b'\xff' * 400
  path.write_bytes(packed)
  with (
    zipfile.ZipFile(path) as archive,
    archive.open(NAME) as member,
    pytest.raises(
      RecordingError, match=rf'^{NAME}: byte \d+: cannot be read .*$'
    ),
  ):
    formats.read_aedat(member)


@pytest.mark.parametrize(
  ('content', 'problem', 'offset'),
  [
    (b'', 'it is empty', 0),
    (b'# a comment\r\n' + HEADER, 'no AEDAT file', 0),
    (b'#!AER-DAT3\r\n', 'no version', 0),
    (b'#!AER-DAT1.0\r\n', 'AEDAT 1.0 is unknown; known: 2.0, 3.1', 0),
    (b'#!AER-DAT3.1\n#a\nb\n#!END-HEADER\n', 'without #', 16),
    (b'#' + bytes(1 << 20), 'no AEDAT file', 0),
    (b'#!AER-DAT2.0' + bytes(1 << 20), 'line does not end', 0),
    (b'#!AER-DAT3.1\r\n#' + bytes(1 << 20), 'line does not end', 14),
    (recordings.n_mnist(GOOD), 'no AEDAT file', 0),
    (HEADER2.replace(b'2.0', b'3.1'), 'header', len(HEADER2)),
    (
      recordings.aedat3(GOOD, (2,)).replace(b'3.1', b'2.0'),
      'outside the layout of a DVS128',
      len(HEADER),
    ),
  ],
)
def test_wrong_beginning(content, problem, offset):
  fails(content, problem, offset)


@pytest.mark.parametrize('read', [formats.read_aedat, formats.read_n_mnist])
def test_errors_name_the_path(read, tmp_path):
  for path in (tmp_path, str(tmp_path / 'missing')):
    with pytest.raises(UserError, match=f'^{path} cannot be opened [^\n]*$'):
      read(path)
  path = opened_path(b'12', tmp_path)
  with pytest.raises(RecordingError, match=f'^{path}: byte 0: '):
    read(path)
  with pytest.raises(UserError, match="did you mean 'sort'"):
    read(opened_path(recordings.aedat2(GOOD), tmp_path), backwards='sorted')


def test_aedat_taken_for_n_mnist():
  for name in ('aedat3', 'aedat2'):
    fails(write(name, GOOD), 'is an AEDAT file', 0, formats.read_n_mnist)


def test_file_that_cannot_be_read():
  class Broken(Named):
    def read(self, size=-1):
      if self.tell() > 4:
        raise OSError(5, 'Input/output error')
      return super().read(min(size, 5))

  with pytest.raises(
    RecordingError, match=r'byte 5: cannot be read .*output error'
  ):
    formats.read_n_mnist(Broken(recordings.n_mnist(GOOD)))


def test_what_is_no_binary_file():
  closed = io.BytesIO()
  closed.close()
  for file in (b'#!AER-DAT3.1', None, 3, io.StringIO('#!AER-DAT3.1'), closed):
    with pytest.raises(UserError, match='binary file open for reading, not'):
      formats.read_aedat(file)


# --- Impossible values ---


def offset_of(name, event):
  """Byte of an event in `write(name, events)`; AEDAT 3.1 in packets of 3."""
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
  block=blocks,
)
def test_times_in_any_order(name, times, dropped, block):
  if name == 'n_mnist':
    dropped = set()
  events = [(t, i, 33 - i, i % 2) for i, t in enumerate(times)]
  content = write(name, events, **options_of(name, dropped))
  kept = [i for i in range(len(events)) if i not in dropped]
  back = [i for j, i in itertools.pairwise(kept) if times[i] < times[j]]
  read = READERS[name](io.BytesIO(content), backwards='sort', block=block)
  if back:
    offset = offset_of(name, back[0])
    fails(content, 'goes back', offset, READERS[name], block=block)
  # Python's sort is stable: x tells which of two at the same time was first.
  assert_holds(
    read,
    sorted((events[i] for i in kept), key=lambda event: event[0]),
    read.sensor_size,
    len(events) - len(kept),
  )


@pytest.mark.parametrize(('name', 'wrap'), [('aedat2', 32), ('n_mnist', 23)])
@every_block
def test_times_that_go_back_by_at_most_half_of_the_clock_do_not_wrap(
  name, wrap, block
):
  last, half = 2**wrap - 1, 2 ** (wrap - 1)
  read = functools.partial(READERS[name], block=block)
  content = write(name, [(last, 0, 33, 0), (last - half, 1, 32, 1)])
  problem = f'from {last} to {last - half} us; events can be put in order of'
  fails(
    content, f"{problem} time by backwards='sort'", offset_of(name, 1), read
  )
  in_order = read(io.BytesIO(content), backwards='sort')
  assert in_order.t.tolist() == [last - half, last]
  # A microsecond more than half is a wrap.
  content = write(name, [(last, 0, 0, 0), (last - half - 1, 1, 1, 1)])
  assert read(io.BytesIO(content)).t.tolist() == [last, last + half - 1]


@settings(max_examples=80, deadline=None)
@given(
  # All that a coordinate may hold in a file.
  outside=st.tuples(st.just('aedat3'), st.integers(128, 2**15 - 1))
  | st.tuples(st.just('n_mnist'), st.integers(34, 239) | st.just(241)),
  number=st.integers(0, 20),
  after=st.integers(0, 5),
  axis=st.sampled_from('xy'),
  dropped=numbers,
  block=blocks,
)
def test_address_outside_the_sensor(
  outside, number, after, axis, dropped, block
):
  name, value = outside
  side = {'aedat3': 128, 'n_mnist': 34}[name]
  events = [(t, 1, 2, 1) for t in range(number + 1 + after)]
  place = (value, 2) if axis == 'x' else (1, value)
  events[number] = (number, *place, 0)
  content = write(name, events, **options_of(name, dropped - {number}))
  problem = f'{axis} = {value} is outside the sensor, 0 to {side - 1}'
  offset = offset_of(name, number)
  fails(content, problem, offset, READERS[name], block=block)


@pytest.mark.parametrize(
  ('field', 'at'), [('<h', 0), ('<i', 4), ('<i', 12), ('<i', 20)]
)
def test_negative_entry_of_a_packet_header(field, at):
  packet = bytearray(recordings.packet3(at % 2, b'\x01' * 8, 8))
  struct.pack_into(field, packet, at, -1)
  before = recordings.aedat3(GOOD)
  fails(before + bytes(packet), 'negative entry', len(before))


def test_polarity_events_have_eight_bytes_and_no_negative_time():
  before = recordings.aedat3(GOOD)
  for size in (0, 7, 16, 2**31 - 1):
    packet = recordings.packet3(1, b'\x01' * 16, size, 1)
    fails(before + packet, f'has 8 bytes, not {size}', len(before))
  packet = recordings.packet3(1, struct.pack('<IiIi', 1, 0, 1, -1), 8)
  fails(HEADER + packet, 'negative', len(HEADER) + 28 + 8)


@pytest.mark.parametrize(
  ('kind', 'size'), [(1, 8), (2, 36), (3, 2**31 - 1), (0, 1)]
)
def test_announced_events_take_no_memory(kind, size, tmp_path):
  most = 2**31 - 1
  content = HEADER + recordings.packet3(kind, b'\x01' * 8, size, most)
  problem = f'announces {most} events of {size} bytes'
  tracemalloc.start()
  fails(content, problem, len(content))
  # Files on disk take as much memory as they are asked to read.
  with pytest.raises(RecordingError, match=problem):
    formats.read_aedat(opened_path(content, tmp_path))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1 << 20
