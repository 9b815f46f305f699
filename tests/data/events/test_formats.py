"""Recordings of event cameras, read back from what was written."""

import gzip
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data.events import formats
from tests.data import recordings
from tests.data.reading import (
  BLOCKS,
  GOOD,
  HEADER,
  HEADER2,
  READERS,
  assert_holds,
  blocks,
  event_lists,
  numbers,
  opened_path,
  write,
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


def test_packets_with_other_overflow_counters_are_decoded_together():
  times = [5, 2**31 - 1, 2**31 + 3, 2**32, 2**32, 2**62 - 1]
  events = [(t, i, 2 * i, i % 2) for i, t in enumerate(times)]
  for sizes in ((64,), (1,), (2,)):
    content = recordings.aedat3(events, sizes)
    assert_holds(formats.read_aedat(io.BytesIO(content)), events)


@pytest.mark.parametrize(('name', 'wrap'), [('aedat2', 32), ('n_mnist', 23)])
@pytest.mark.parametrize('block', BLOCKS)
def test_gap_over_a_wrap_may_be_just_below_half_of_it(name, wrap, block):
  half = 2 ** (wrap - 1)
  times = [half + i * (half - 1) for i in range(9)]
  # A gap that does not meet the wrap may be longer.
  times = [0, *times]
  events = [(t, i, 2 * i, i % 2) for i, t in enumerate(times)]
  read = READERS[name](io.BytesIO(write(name, events)), block=block)
  assert read.t.tolist() == times


def test_axes_and_bit_order_of_bytes_written_by_hand():
  # Valid and brighter, row 1, column 3, 258 us, overflow 1.
  packet = bytes.fromhex(
    '0100 0100 08000000 04000000 01000000'.replace(' ', '')
  )
  packet += bytes.fromhex('0100000001000000010000000700060002010000')
  read = formats.read_aedat(io.BytesIO(HEADER + packet))
  assert_holds(read, [(2**31 + 258, 3, 1, 1)])
  # Row 1, column 127 - 3, brighter; time 258.
  content = HEADER2 + bytes.fromhex('0000010700000102')
  assert_holds(formats.read_aedat(io.BytesIO(content)), [(258, 124, 1, 1)])
  content = bytes([7, 9, 0x81, 2, 3])
  assert_holds(
    formats.read_n_mnist(io.BytesIO(content)),
    [(0x010203, 7, 9, 1)],
    (34, 34),
  )


@pytest.mark.parametrize(
  ('content', 'read', 'sensor_size'),
  [
    (HEADER, formats.read_aedat, (128, 128)),
    (
      HEADER + recordings.packet3(1, b'', 8),
      formats.read_aedat,
      (128, 128),
    ),
    (HEADER2, formats.read_aedat, (128, 128)),
    (b'#!AER-DAT2.0\n', formats.read_aedat, (128, 128)),
    (b'', formats.read_n_mnist, (34, 34)),
  ],
)
def test_no_events_are_no_error(content, read, sensor_size):
  events = read(io.BytesIO(content))
  assert_holds(events, [], sensor_size)
  assert_holds(events.between(0, 10), [], sensor_size)
  assert len(events) == events.nbytes == len(events.to_array()) == 0


def test_events_all_dropped_are_no_error():
  for content in (
    recordings.aedat3(GOOD, invalid=range(4)),
    recordings.aedat2(GOOD, special=range(4)),
  ):
    assert_holds(formats.read_aedat(io.BytesIO(content)), [], dropped=4)


def test_parts_of_a_recording_are_views():
  content = recordings.aedat3(GOOD)
  events = formats.read_aedat(io.BytesIO(content))
  part = events.between(7, 900)
  assert_holds(part, GOOD[1:3])
  assert np.shares_memory(part.t, events.t)
  assert_holds(events[1:], GOOD[1:])
  assert events.nbytes == 4 * 13
