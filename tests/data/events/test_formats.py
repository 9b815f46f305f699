"""Recordings of event cameras, read back from what was written."""

import gzip
import io
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data.events import formats
from tests.data import recordings
from tests.data.reading import (
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
  # Row 1, column 127 - 3, brighter; time 258.
  content = HEADER2 + bytes.fromhex('0000010700000102')
  assert_holds(formats.read_aedat(io.BytesIO(content)), [(258, 124, 1, 1)])
  content = bytes([7, 9, 0x81, 2, 3])
  assert_holds(
    formats.read_n_mnist(io.BytesIO(content)),
    [(0x010203, 7, 9, 1)],
    (34, 34),
  )


def test_no_events_are_no_error():
  empty_packet = HEADER + recordings.packet3(1, b'', 8)
  for content in (HEADER, empty_packet, HEADER2, b'#!AER-DAT2.0\n'):
    assert_holds(formats.read_aedat(io.BytesIO(content)), [])
  events = formats.read_n_mnist(io.BytesIO())
  assert_holds(events.between(0, 10), [], (34, 34))
  assert len(events) == events.nbytes == len(events.to_array()) == 0
