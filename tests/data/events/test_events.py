"""Events as structured arrays, and next to the tonic library."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlf_jax.data.events import Events, formats, from_array, to_frames
from mlf_jax.errors import UserError
from tests.data import recordings
from tests.data.reading import (
  GOOD,
  READERS,
  assert_holds,
  event_lists,
  opened_path,
  write,
)


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


@pytest.mark.parametrize(
  ('sensor_size', 'kind'),
  [((34, 1 << 15), 'int16'), ((1 << 16, 34), 'int32')],
)
def test_places_on_large_sensors(sensor_size, kind):
  y, x = (side - 1 for side in sensor_size)
  events = [(0, 0, 0, 0), (1, x, y, 1)]
  read = from_array(array_of(events, x='u4', y='u4'), sensor_size)
  assert_holds(read, events, sensor_size)
  array = read.to_array()
  assert array.tolist() == events
  assert array.dtype['x'] == array.dtype['y'] == kind
  assert_holds(from_array(array, sensor_size), events, sensor_size)


def test_times_up_to_the_last_that_64_bits_hold():
  most = 2**63 - 1
  for kind, first in (('u8', 0), ('i8', -(2**63))):
    events = [(first, 0, 0, 0), (most, 1, 1, 1)]
    assert_holds(
      from_array(array_of(events, t=kind), (34, 40)), events, (34, 40)
    )
    with pytest.raises(UserError, match=f'event 1 goes .*to {first} us'):
      from_array(array_of(events[::-1], t=kind), (34, 40))


def test_between_takes_its_start_and_not_its_stop():
  t = np.array([-3, 0, 5, 5, 5, 7, 9])
  zeros = np.zeros(len(t), np.uint16)
  events = Events(t, zeros, zeros, zeros.astype(np.uint8), (3, 4))
  for start in range(-5, 12):
    for stop in range(start, 12):
      part = events.between(start, stop)
      assert part.t.tolist() == [time for time in t if start <= time < stop]
      assert part.sensor_size == (3, 4)
  assert np.shares_memory(events[1:].t, events.t)


def array_of(events, **dtypes):
  dtypes = {'t': 'i8', 'x': 'i2', 'y': 'i2', 'p': 'i1', **dtypes}
  return np.array(events, list(dtypes.items()))


@pytest.mark.parametrize(
  ('array', 'problem'),
  [
    (array_of(GOOD)[['t', 'x', 'p']], 'with fields t, x, p'),
    (np.zeros((3, 4), int), r'got shape \(3, 4\) with no fields'),
    (array_of(GOOD, t='f8'), "'t' must hold integers, got float64"),
    (array_of(GOOD, y='?'), "'y' must hold integers, got bool"),
    (array_of([*GOOD, (901, 0, 0, 2)]), 'event 4 has p = 2, outside 0 to 1'),
    (array_of([(0, 0, 0, -1)]), 'event 0 has p = -1'),
    (array_of([*GOOD, (901, 40, 0, 1)]), 'event 4 has x = 40, outside 0 to 39'),
    (array_of([(0, 39, 34, 1)]), 'event 0 has y = 34, outside 0 to 33'),
    (array_of([*GOOD, (899, 0, 0, 1)]), 'event 4 goes .*from 900 to 899 us'),
    (
      array_of([*GOOD, (2**63, 0, 0, 1)], t='u8'),
      'event 4 has t = 9223372036854775808, outside -9223372036854775808 to',
    ),
  ],
)
def test_wrong_structured_array(array, problem):
  with pytest.raises(UserError, match=problem) as info:
    from_array(array, (34, 40))
  assert '\n' not in str(info.value)


@pytest.fixture
def tonic():
  return pytest.importorskip('tonic')


def many_events(side, number=500):
  rng = np.random.default_rng(0)
  times = np.sort(rng.integers(0, 300_000, number)).tolist()
  places = rng.integers(0, side, (number, 2)).tolist()
  return [(t, *place, t % 2) for t, place in zip(times, places, strict=True)]


# tonic heeds neither the valid bit nor the overflow counter nor the type of a
# packet: only without them is there something to compare.
@pytest.mark.parametrize('name', READERS)
def test_tonic_reads_the_same(tonic, tmp_path, monkeypatch, name):
  listed = many_events(34)
  path = opened_path(write(name, listed), tmp_path)
  read_header = tonic.io.read_aedat_header_from_file
  # It returns three values, but its own readers expect two.
  monkeypatch.setattr(
    tonic.io, 'read_aedat_header_from_file', lambda name: read_header(name)[:2]
  )
  if name == 'n_mnist':
    array = tonic.io.read_mnist_file(path, tonic.io.events_struct)
  elif name == 'aedat3':
    array = tonic.io.read_dvs_ibm(path)[1]
  else:
    array = tonic.io.read_dvs_128(path)[1]
    # tonic's axes of this camera are swapped, and its columns not mirrored.
    array['x'], array['y'] = 127 - array['y'], array['x'].copy()
  events = READERS[name](path)
  assert len(events) == len(array) == len(listed)
  for field in 'txyp':
    np.testing.assert_array_equal(getattr(events, field), array[field])


def test_transforms_of_tonic_take_and_give_our_events(tonic):
  content = recordings.n_mnist(many_events(34))
  events = formats.read_n_mnist(io.BytesIO(content))
  dropped = tonic.transforms.DropEvent(p=0.3)(events.to_array())
  assert 0 < len(from_array(dropped, (34, 34))) < len(events)
  half = tonic.transforms.Downsample(spatial_factor=0.5)(events.to_array())
  assert from_array(half, (17, 17)).x.tolist() == [x // 2 for x in events.x]
  size = (34, 34, 2)
  frames = tonic.transforms.ToFrame(size, n_event_bins=5)(events.to_array())
  np.testing.assert_array_equal(
    np.moveaxis(frames, 1, -1), to_frames(events, 5, binning='count')
  )


@pytest.mark.parametrize(
  'size', [128, (34, 34, 2), (128.0, 128.0), (0, 34), (34, 70_000), None]
)
def test_sensor_size_is_height_and_width(size):
  with pytest.raises(UserError, match=r'must be \(height, width\), 1 to 65536'):
    from_array(array_of([]), size)


def test_columns_have_their_types_and_one_length():
  columns = [
    np.zeros(3, dtype) for dtype in (np.int64, np.uint16, np.uint16, np.uint8)
  ]
  events = Events(*columns, (5, 5))
  for number in range(4):
    for wrong in ([0, 0, 0], np.zeros(3), columns[number][:2]):
      changed = columns.copy()
      changed[number] = wrong
      with pytest.raises(UserError, match='must be an array of'):
        Events(*changed, (5, 5))
  with pytest.raises(UserError, match='taken by a slice, not by 1'):
    events[1]
