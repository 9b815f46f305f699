"""Impossible values in recordings: errors that name the file and the byte."""

import io
import itertools
import struct
import tracemalloc
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data import event_files
from tests.data import recordings
from tests.data.reading import (
  BLOCKS,
  GOOD,
  HEADER,
  HEADER2,
  READERS,
  assert_holds,
  fails,
  numbers,
  opened_path,
  write,
)

EVENT_BYTES = {'aedat3': 8, 'aedat2': 8, 'n_mnist': 5}


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


@pytest.mark.parametrize(('name', 'wrap'), [('aedat2', 32), ('n_mnist', 23)])
@pytest.mark.parametrize('block', [1, event_files._BLOCK])
@pytest.mark.parametrize('quarters', [0.5, 1.1, 1.5, 1.9, 2])
def test_times_that_go_back_by_at_most_half_of_the_clock_do_not_wrap(
  name, wrap, block, quarters
):
  last = 2**wrap - 1
  times = [5, last, last - int(quarters * 2 ** (wrap - 2))]
  events = [(t, i, 33 - i, i % 2) for i, t in enumerate(times)]
  content = write(name, events)
  read = READERS[name]
  with mock.patch.object(event_files, '_BLOCK', block):
    fails(content, f'from {last} to {times[2]} us', offset_of(name, 2), read)
    in_order = read(io.BytesIO(content), backwards='sort')
    # A microsecond more than half is a wrap.
    further = [(last, 0, 0, 0), (2 ** (wrap - 1) - 2, 1, 1, 1)]
    wrapped = read(io.BytesIO(write(name, further)))
  assert in_order.t.tolist() == sorted(times)
  assert wrapped.t.tolist() == [last, 2**wrap + 2 ** (wrap - 1) - 2]


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


@pytest.mark.parametrize('bit', range(7, 15))
@pytest.mark.parametrize('axis', 'xy')
def test_every_bit_of_an_address_counts(bit, axis):
  place = (1 << bit, 0) if axis == 'x' else (0, 1 << bit)
  content = recordings.aedat3([*GOOD, (901, *place, 1)])
  offset = len(HEADER) + 28 + 8 * len(GOOD)
  fails(content, f'{axis} = {1 << bit} is outside', offset)


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
def test_announced_events_take_no_memory(kind, size, tmp_path):
  most = 2**31 - 1
  content = HEADER + recordings.packet3(kind, b'\x01' * 8, size, most)
  problem = f'announces {most} events of {size} bytes'
  tracemalloc.start()
  fails(content, problem, len(content))
  # Files on disk take as much memory as they are asked to read.
  with pytest.raises(event_files.RecordingError, match=problem):
    event_files.read_aedat(opened_path(content, tmp_path))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1 << 20


def test_packets_of_one_event_take_no_more_memory():
  content = recordings.aedat3([(t, 1, 2, 1) for t in range(30_000)], (1,))
  tracemalloc.start()
  events = event_files.read_aedat(io.BytesIO(content))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 3 * events.nbytes + (1 << 20)


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
