"""Files of today's cameras: written by hand, and by faery's own encoders."""

import importlib
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings

from mlf_jax.data.events import RecordingError, read_recording, recording_pieces
from mlf_jax.errors import UserError
from tests.data.reading import assert_holds, event_lists

faery = pytest.importorskip('faery')

SIZE = (34, 40)  # Height, width.
HEADER = b'%% date 2024-01-01 12:00:00\n%% evt %b\n%% geometry 40x34\n%% end\n'
EVT2, EVT3 = HEADER % b'2.0', HEADER % b'3.0'
DAT = b'% Version 2\n% Width 40\n% Height 34\n\x0c\x08'
# Names of files, with the options of faery's encoder.
FILES = {
  'evt2.raw': {'version': 'evt2'},
  'evt3.raw': {'version': 'evt3'},
  'old.dat': {'version': 'dat1'},
  'new.DAT': {'version': 'dat2', 'file_type': 'dat'},
  'stream.es': {},
  'lz4.aedat4': {},
  'zstd.aedat4': {'compression': ('zstd', 1)},
  'plain.aedat4': {'compression': None},
}
# About ten seconds: the high bits of every clock change.
EVENTS = [(7 * i**3 + 5, i % 40, (i * i) % 34, i % 2) for i in range(120)]


def write(folder, name, content):
  path = folder / name
  path.write_bytes(content)
  return path


def written_by_faery(folder, name, events=EVENTS):
  array = np.array(events, [('t', 'u8'), ('x', 'u2'), ('y', 'u2'), ('on', '?')])
  stream = faery.events_stream_from_array(
    array.astype(faery.EVENTS_DTYPE), SIZE[::-1]
  )
  stream.to_file(folder / name, zero_t0=False, **FILES[name])
  return folder / name


def fails(path, problem, **options):
  with pytest.raises(UserError, match=problem) as error:
    read_recording(path, **options)
  message = str(error.value)
  assert '\n' not in message and str(path) in message


# --- Written by hand, after the descriptions of the formats ---


def evt2(events):
  """EVT 2: 28 bits of time, then events with the 6 bits below."""
  content = EVT2
  for t, x, y, p in events:
    content += struct.pack('<I', 0b1000 << 28 | t >> 6)
    content += struct.pack('<I', p << 28 | (t & 63) << 22 | x << 11 | y)
  return content


def dat(events):
  return DAT + b''.join(
    struct.pack('<II', t, p << 28 | y << 14 | x) for t, x, y, p in events
  )


@settings(max_examples=25, deadline=None)
@given(events=event_lists(34, 2**28))
def test_words_of_evt2_and_dat(tmp_path_factory, events):
  events = [event for event in events if event[0] < 2**32]
  for name, content in (('a.raw', evt2(events)), ('a.dat', dat(events))):
    path = write(tmp_path_factory.getbasetemp(), name, content)
    assert_holds(read_recording(path), events, SIZE)


def evt3(*words):
  return EVT3 + struct.pack(f'<{len(words)}H', *words)


def test_words_of_evt3(tmp_path):
  words = (
    *(0x8003, 0x6010),  # Time 3 << 12 | 16.
    *(0x0002, 0x2805),  # Row 2; column 5, brighter.
    *(0x2006, 0x6011),  # Column 6, darker; a microsecond later.
    *(0x3814, 0x4801),  # From column 20 on, brighter: columns 20 and 31.
    *(0x5081, 0x8004),  # Eight more: columns 32 and 39; time 4 << 12.
    *(0x0021, 0x2000),  # Row 33, column 0.
  )
  t = 3 << 12 | 16
  expected = [(t, 5, 2, 1), (t, 6, 2, 0)]
  expected += [(t + 1, x, 2, 1) for x in (20, 31, 32, 39)]
  expected += [(4 << 12, 0, 33, 0)]
  path = write(tmp_path, 'a.raw', evt3(*words))
  assert_holds(read_recording(path), expected, SIZE)


def test_rows_of_an_event_stream_are_counted_from_the_bottom(tmp_path):
  content = b'Event Stream\x02\x00\x00\x01' + struct.pack('<HH', 40, 34)
  for wait, x, y, p in ((5, 1, 0, 1), (3, 39, 33, 0)):
    content += struct.pack('<BHH', wait << 1 | p, x, y)
  path = write(tmp_path, 'a.es', content)
  assert_holds(read_recording(path), [(5, 1, 33, 1), (8, 39, 0, 0)], SIZE)


@pytest.mark.parametrize('events_per_piece', [1, 2, 9])
def test_events_before_the_first_time_are_dropped(tmp_path, events_per_piece):
  untimed = (0x0002, 0x2805, 0x3000, 0x4003, 0x5001, 0x6001, 0x2001)
  late = write(tmp_path, 'a.raw', evt3(*untimed, 0x8800, 0x6000, 0x2003))
  first, *rest = recording_pieces(late, events_per_piece=events_per_piece)
  assert_holds(first, [(0x800 << 12, 3, 2, 0)], SIZE, dropped=5)
  assert not rest
  event = struct.pack('<I', 1 << 28 | 3 << 11 | 4)
  timed = evt2([(2**30, 1, 2, 1)]).removeprefix(EVT2)
  late = write(tmp_path, 'b.raw', EVT2 + event + timed)
  events = read_recording(late)
  assert_holds(events, [(2**30, 1, 2, 1)], SIZE, dropped=1)
  never = write(tmp_path, 'c.raw', EVT2 + event)
  assert_holds(read_recording(never), [], SIZE, dropped=1)


# --- Written by faery ---


@pytest.mark.parametrize('name', FILES)
def test_formats_are_read_as_faery_wrote_them(tmp_path, name):
  path = written_by_faery(tmp_path, name)
  whole = read_recording(path)
  assert_holds(whole, EVENTS, SIZE)
  assert_holds(read_recording(str(path), SIZE), EVENTS, SIZE)
  for events_per_piece in (7, 120):
    pieces = [*recording_pieces(path, events_per_piece=events_per_piece)]
    assert {len(piece) for piece in pieces[:-1]} <= {events_per_piece}
    assert len(pieces) == -(-120 // events_per_piece)
    for column in 'txyp':
      parts = [getattr(piece, column) for piece in pieces]
      np.testing.assert_array_equal(
        np.concatenate(parts), getattr(whole, column)
      )
  problem = '34 x 40 pixels, not 128 x 128, as sensor says'
  fails(path, problem, sensor='dvs128')


@pytest.mark.parametrize('name', FILES)
def test_a_recording_without_events_has_a_size(tmp_path, name):
  path = written_by_faery(tmp_path, name, [])
  assert_holds(read_recording(path), [], SIZE)
  assert [len(piece) for piece in recording_pieces(path)] == [0]


def test_a_sensor_of_unknown_size_is_asked_for(tmp_path):
  event = (9, 1, 2, 1)
  content = evt2([event]).replace(b'% geometry 40x34\n', b'')
  path = write(tmp_path, 'a.raw', content)
  fails(path, r'size of its sensor: give sensor=\(height, width\)')
  assert_holds(read_recording(path, SIZE), [event], SIZE)


# --- Damaged files ---


@pytest.mark.parametrize(
  ('name', 'content', 'problem'),
  [
    ('a.raw', EVT3 + b'\0', f'byte {len(EVT3)}: truncated: 1 bytes where a w'),
    ('a.raw', EVT2 + b'\0' * 7, f'byte {len(EVT2) + 4}: truncated: 3 bytes'),
    ('a.dat', DAT + b'\0' * 12, f'byte {len(DAT) + 8}: truncated: 4 bytes wh'),
    ('a.raw', b'', 'no Prophesee EVT file: its header is missing'),
    ('a.dat', b'binary', 'no Prophesee DAT file: its header is missing'),
    ('a.raw', HEADER % b'2.1', 'EVT 2.1 is not read, but EVT 2, EVT 3 and DAT'),
    ('a.raw', HEADER % b'4.0', 'Prophesee EVT file .unknown version "4.0"'),
    ('a.raw', evt3(0x8001, 0x2028), r'no Prophesee EVT file \(x overflow .*40'),
    ('a.es', b'Event Strea', r'no Event Stream file \('),
    ('a.aedat4', b'#!AER-DAT3.1\r\n', r"no AEDAT 4 file: .*b'#!AER-DAT3.1"),
    ('a.aedat4', b'#!AER-DAT4.0\r\n\xff', 'header is damaged or truncated'),
  ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, content, problem):
  path = write(tmp_path, name, content)
  with pytest.raises(RecordingError):
    read_recording(path)
  fails(path, problem)


def test_a_file_of_aedat4_that_is_damaged_anywhere(tmp_path):
  """faery trusts the header, and would end the process."""
  content = written_by_faery(tmp_path, 'plain.aedat4').read_bytes()
  for number in range(0, 1000, 7):
    damaged = bytearray(content)
    damaged[number] ^= 0xFF
    path = write(tmp_path, 'a.aedat4', damaged)
    try:
      events = read_recording(path)
    except RecordingError as error:
      assert '\n' not in str(error)
    else:
      assert len(events) == len(EVENTS)
  for cut in range(0, len(content) - 1, 50):
    fails(write(tmp_path, 'a.aedat4', content[:cut]), 'AEDAT 4|truncated')


def test_without_faery_one_line_says_how_to_install_it(monkeypatch):
  module = importlib.import_module('mlf_jax.data.events.faery_files')
  monkeypatch.setitem(sys.modules, 'faery', None)
  with pytest.raises(UserError, match=r'need faery: pip install "mlf_jax\[eve'):
    importlib.reload(module)
