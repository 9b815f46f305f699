"""Recordings of event cameras, read back from what was written."""

import gzip
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data.events import formats
from mlf_jax.errors import UserError
from tests.data import recordings
from tests.data.reading import (
  BLOCKS,
  HEADER,
  HEADER2,
  assert_holds,
  blocks,
  event_lists,
  numbers,
  opened_path,
)


class Short(io.RawIOBase):
  """A file whose `read` returns a byte, two bytes, three, and over again."""

  def __init__(self, content):
    self._file = io.BytesIO(content)
    self._sizes = itertools.cycle([1, 2, 3])

  def read(self, size=-1):
    return self._file.read(min(size, next(self._sizes)))


# Ways to hand over a recording.
WAYS = {
  'path': opened_path,
  'text path': lambda content, folder: str(opened_path(content, folder)),
  'gzip': lambda content, folder: gzip.GzipFile(
    fileobj=io.BytesIO(gzip.compress(content))
  ),
  'memory': lambda content, folder: io.BytesIO(content),
  'short': lambda content, folder: Short(content),
}
ways = st.sampled_from(list(WAYS))

# Other packets are skipped though their content looks like polarity events.
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
  block=blocks,
  way=ways,
)
def test_aedat3_is_read_as_it_was_written(
  tmp_path_factory, events, sizes, invalid, between, lines, block, way
):
  content = recordings.aedat3(
    events, sizes, invalid=invalid, between=between, lines=lines
  )
  valid = [event for i, event in enumerate(events) if i not in invalid]
  file = WAYS[way](content, tmp_path_factory.getbasetemp())
  read = formats.read_aedat(file, block=block)
  assert_holds(read, valid, dropped=len(events) - len(valid))


@settings(max_examples=40, deadline=None)
@given(
  events=event_lists(128, 2**26, st.sampled_from([0, 2**31, 2**32 - 9])),
  special=numbers,
  lines=st.lists(
    st.text('#! ab\r', max_size=20).map('#{}\n'.format), max_size=4
  ),
  block=blocks,
  way=ways,
)
def test_aedat2_is_read_as_it_was_written(
  tmp_path_factory, events, special, lines, block, way
):
  content = recordings.aedat2(events, special=special, lines=lines)
  kept = [event for i, event in enumerate(events) if i not in special]
  # Wraps before the first event that is kept cannot be known.
  lost = kept[0][0] // 2**32 * 2**32 if kept else 0
  expected = [(t - lost, *place) for t, *place in kept]
  file = WAYS[way](content, tmp_path_factory.getbasetemp())
  read = formats.read_aedat(file, block=block)
  assert_holds(read, expected, dropped=len(events) - len(kept))


@settings(max_examples=40, deadline=None)
@given(
  events=event_lists(34, 2**22 - 1),
  block=blocks,
  way=ways,
)
def test_n_mnist_is_read_as_it_was_written(
  tmp_path_factory, events, block, way
):
  content = recordings.n_mnist(events)
  file = WAYS[way](content, tmp_path_factory.getbasetemp())
  read = formats.read_n_mnist(file, block=block)
  # Wraps before the first event cannot be known.
  lost = events[0][0] // 2**23 * 2**23 if events else 0
  assert_holds(read, [(t - lost, *place) for t, *place in events], (34, 34))


def test_axes_and_bit_order_of_bytes_written_by_hand():
  # Valid and brighter, row 1, column 3, 258 us, overflow 1.
  packet = bytes.fromhex(
    '0100 0100 08000000 04000000 01000000'.replace(' ', '')
  )
  packet += bytes.fromhex('0100000001000000010000000700060002010000')
  read = formats.read_aedat(io.BytesIO(HEADER + packet))
  assert_holds(read, [(2**31 + 258, 3, 1, 1)])
  # y address 1, which is the last row but one; column 127 - 3, brighter; time
  # 258.
  content = HEADER2 + bytes.fromhex('0000010700000102')
  assert_holds(formats.read_aedat(io.BytesIO(content)), [(258, 124, 126, 1)])
  # The camera of CIFAR10-DVS lay on its side.
  read = formats.read_cifar10_dvs(io.BytesIO(content))
  assert_holds(read, [(258, 126, 124, 1)])
  content = bytes([7, 9, 0x81, 2, 3])
  assert_holds(
    formats.read_n_mnist(io.BytesIO(content)),
    [(0x010203, 7, 9, 1)],
    (34, 34),
  )


@pytest.mark.parametrize('sensor', ['davis240', 'davis346'])
@pytest.mark.parametrize('block', BLOCKS)
def test_aedat2_of_davis_cameras(sensor, block):
  height, width = size = formats.SENSORS[sensor]
  random = np.random.default_rng(block)
  events = [
    (9 * i, *map(int, random.integers(0, (width, height, 2))))
    for i in range(99)
  ]
  # The first byte of this address is that of '#', which begins header lines.
  events[0] = (0, width - 1 - 16, height - 1 - 0x23 * 4 + 0, 1)
  events += [(900, 0, 0, 0), (901, width - 1, height - 1, 1)]
  other = {3, 4, 50, 51}
  content = recordings.aedat2_of_davis(events, size, other=other)
  read = formats.read_aedat(io.BytesIO(content), sensor=sensor, block=block)
  kept = [event for i, event in enumerate(events) if i not in other]
  assert_holds(read, kept, size, dropped=4)


def test_address_of_davis_written_by_hand():
  # y address 2, x address 5, brighter; time 258.
  content = HEADER2 + bytes.fromhex('0080580000000102')
  read = formats.read_aedat(io.BytesIO(content), sensor='davis240')
  assert_holds(read, [(258, 234, 177, 1)], (180, 240))


def test_other_sensors_in_formats_that_tell_no_size():
  listed = [(5, 345, 259, 1), (9, 0, 0, 0)]
  content = recordings.aedat3(listed)
  for sensor in ('davis346', (260, 346)):
    read = formats.read_aedat(io.BytesIO(content), sensor=sensor)
    assert_holds(read, listed, (260, 346))
  listed = [(5, 239, 179, 1), (9, 0, 0, 0)]  # As in N-Caltech101.
  content = recordings.n_mnist(listed)
  read = formats.read_n_mnist(io.BytesIO(content), sensor=(180, 240))
  assert_holds(read, listed, (180, 240))


@pytest.mark.parametrize(
  ('sensor', 'message'),
  [
    (
      'davis',
      "sensor 'davis' is unknown .*; known: dvs128, davis240, davis346, HEIGHT",
    ),
    ((180, 240), r'in AEDAT 2.0, .*: sensor must be its name, one of dvs128'),
    (128, r'must be \(height, width\)'),
    ('davis240', '0x500000 is outside the layout of a DAVIS240; sensor names'),
  ],
)
def test_mistakes_of_the_sensor(sensor, message):
  content = HEADER2 + bytes.fromhex('0050000000000102')
  with pytest.raises(UserError, match=message) as error:
    formats.read_aedat(io.BytesIO(content), sensor=sensor)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('block', BLOCKS)
def test_clock_markers_of_n_mnist_delay_what_follows(block):
  entries = [(8191, 3, 4, 0), (0, 0, 240, 0), (5, 5, 6, 1)]
  file = io.BytesIO(recordings.n_mnist(entries))
  read = formats.read_n_mnist(file, block=block)
  expected = [(8191, 3, 4, 0), (8197, 5, 6, 1)]
  assert_holds(read, expected, (34, 34), dropped=1)
  entries += [(8000, 1, 1, 1), (0, 9, 240, 1), (0, 0, 240, 0), (7, 2, 2, 0)]
  file = io.BytesIO(recordings.n_mnist(entries))
  read = formats.read_n_mnist(file, block=block)
  expected += [(16192, 1, 1, 1), (24583, 2, 2, 0)]
  assert_holds(read, expected, (34, 34), dropped=3)


def test_no_events_are_no_error():
  empty_packet = HEADER + recordings.packet3(1, b'', 8)
  for content in (HEADER, empty_packet, HEADER2, b'#!AER-DAT2.0\n'):
    assert_holds(formats.read_aedat(io.BytesIO(content)), [])
  events = formats.read_n_mnist(io.BytesIO())
  assert_holds(events.between(0, 10), [], (34, 34))
  assert len(events) == events.nbytes == len(events.to_array()) == 0
