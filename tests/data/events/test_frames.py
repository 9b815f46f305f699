"""Frames of recordings, held to a loop over single events."""

import dataclasses
import fractions
import io
import re
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlf_jax.data.events.events import Events
from mlf_jax.data.events.formats import read_cifar10_dvs
from mlf_jax.data.events.frames import FrameSpec, to_frames
from mlf_jax.errors import UserError

SENSOR = (9, 12)


def events_of(listed, sensor_size=SENSOR):
  """Events from a list of (t, x, y, p)."""
  columns = zip(*listed, strict=True) if listed else ((),) * 4
  dtypes = (np.int64, np.uint16, np.uint16, np.uint8)
  columns = map(np.array, columns, dtypes)
  return Events(*columns, sensor_size)


def frame_of(spec, number, listed):
  """Number of the frame of an event, None where it is in none."""
  steps, (t, *_) = spec.time_steps, listed[number]
  since, length = t - listed[0][0], listed[-1][0] - listed[0][0] + 1
  if spec.binning == 'window':
    frame = since // spec.window_us
    return frame if frame < steps else None
  if spec.binning == 'span':
    return since * steps // length
  # Part i begins with event i * events // steps: the last that is not above.
  begins = [i * len(listed) // steps for i in range(steps)]
  return max(i for i in range(steps) if begins[i] <= number)


def side_of(side, downsample):
  return (side - 1) // fractions.Fraction(downsample) + 1


def frames_by_loop(spec, listed, sensor_size=SENSOR):
  height, width = spec.crop if any(spec.crop) else sensor_size
  top, left = (sensor_size[0] - height) // 2, (sensor_size[1] - width) // 2
  shape = [side_of(side, spec.downsample) for side in (height, width)]
  frames = np.zeros((spec.time_steps, *shape, 2), int)
  scale = fractions.Fraction(spec.downsample)
  for number, (_, x, y, p) in enumerate(listed):
    x, y = x - left, y - top
    is_kept = 0 <= x < width and 0 <= y < height
    x = width - 1 - x if spec.mirrored else x
    frame = frame_of(spec, number, listed)
    if frame is not None and is_kept:
      frames[frame, y // scale, x // scale, p] += 1
  return np.minimum(frames, 255)


downsamples = st.sampled_from([1, 2, 4, 3.04, 1.5]) | st.floats(1, 20)
binnings = st.one_of(
  st.tuples(st.just('window'), st.integers(1, 40) | st.integers(1, 10**12)),
  st.tuples(st.sampled_from(['span', 'count']), st.just(0)),
)
specs = st.builds(
  lambda steps, binning, *rest: FrameSpec(steps, *binning, *rest),
  st.integers(1, 12),
  binnings,
  downsamples,
  st.booleans(),
  st.just((0, 0)) | st.tuples(st.integers(1, 9), st.integers(1, 12)),
)
# Few pixels, so that some meet more than one event.
places = st.tuples(
  st.integers(0, 11), st.integers(0, 8), st.integers(0, 1)
) | st.sampled_from([(11, 8, 1), (0, 0, 0)])


@st.composite
def recordings(draw):
  """Lists of events, some as long as clocks of 62 bits allow."""
  most = draw(st.sampled_from([0, 5, 100, 2**40, 2**62 - 1]))
  time = st.integers(draw(st.integers(0, most)), most)
  times = sorted(draw(st.lists(time, max_size=40)))
  return [(t, *draw(places)) for t in times]


@settings(max_examples=250, deadline=None)
@given(spec=specs, listed=recordings(), size=st.integers(1, 50))
# Products of more than 64 bits.
@example(
  FrameSpec(12, 'span'), [(0, 1, 1, 1), (2**61, 2, 2, 1), (2**62, 0, 0, 0)], 1
)
@example(
  FrameSpec(2, 'window', 10**12), [(0, 1, 1, 1), (2**62 - 1, 2, 2, 1)], 1
)
# Counts of several pieces stay at 255 too.
@example(FrameSpec(2, 'count'), [(0, 1, 1, 1)] * 700, 100)
def test_frames_are_those_of_a_loop(spec, listed, size):
  frames = spec.frames(events_of(listed))
  assert frames.dtype == np.uint8
  np.testing.assert_array_equal(frames, frames_by_loop(spec, listed))
  assert frames.shape == spec.shape(SENSOR)
  again = to_frames(events_of(listed), **dataclasses.asdict(spec))
  np.testing.assert_array_equal(frames, again)
  whole = events_of(listed)
  starts = range(0, max(1, len(whole)), size)
  pieces = [whole[start : start + size] for start in starts]
  of_pieces = spec.frames_of_pieces(lambda: iter(pieces))
  np.testing.assert_array_equal(of_pieces, frames)
  padded = 0 if listed else spec.time_steps
  if listed and spec.binning == 'window':
    begins = [listed[0][0] + i * spec.window_us for i in range(spec.time_steps)]
    padded = sum(begin > listed[-1][0] for begin in begins)
  share = spec.padded_share(events_of(listed))
  assert share == pytest.approx(padded / spec.time_steps, abs=1e-12)


@pytest.mark.parametrize(
  ('downsample', 'side'),
  [(1, 128), (2, 64), (4, 32), (3.04, 42), (3, 43), (128, 1), (1000, 1)],
)
def test_pixels_of_a_sensor_of_128(downsample, side):
  spec = FrameSpec(2, 'span', downsample=downsample)
  assert spec.shape((128, 34)) == (2, side, side_of(34, downsample), 2)
  corners = [(0, 0, 0, 0), (1, 33, 127, 1)]
  frames = spec.frames(events_of(corners, (128, 34)))
  assert frames[1, -1, -1, 1] == frames[0, 0, 0, 0] == 1
  # Every pixel of the frame has as many of the sensor's, give or take one.
  listed = [(0, 0, y, 0) for y in range(128)]
  counts = spec.frames(events_of(listed, (128, 34)))[0, :-1, 0, 0]
  assert set(counts.tolist()) <= {int(downsample), int(np.ceil(downsample))}


def test_specifications_that_differ_have_names_that_differ():
  names = {
    FrameSpec(*arguments).name
    for arguments in (
      (5, 'span'),
      (6, 'span'),
      (5, 'count'),
      (5, 'window', 1),
      (5, 'window', 2),
      (5, 'span', 0, 3.04),
      (5, 'span', 0, 3.0400000001),
      (5, 'span', 0, 1.0, True),
      (5, 'span', 0, 1.0, False, (1, 11)),
      (5, 'span', 0, 1.0, False, (11, 1)),
    )
  }
  assert len(names) == 10
  assert FrameSpec(5, 'span').name == FrameSpec(5, 'span', 0, 1).name
  # Frames that were prepared before there were crops are still found.
  assert FrameSpec(5, 'span', crop=(0, 0)).name == 't5_span_down1.0'
  # Folders are called so.
  longest = FrameSpec(10**5, 'window', 10**12, 1 + 2**-52, True, (2**16,) * 2)
  for name in (*names, longest.name):
    assert re.fullmatch('[a-z0-9_.]{1,90}', name)


@pytest.mark.parametrize('mirrored', [False, True])
def test_a_crop_is_the_middle_of_the_sensor(mirrored):
  random = np.random.default_rng(0)
  columns = (np.arange(900), *(random.integers(0, s, 900) for s in (12, 9, 2)))
  whole = events_of(list(zip(*map(np.ndarray.tolist, columns), strict=True)))
  # 9 x 12 pixels to 4 x 7: rows 2 to 5, columns 2 to 8.
  inside = [
    (t, x - 2, y - 2, p)
    for t, x, y, p in zip(whole.t, whole.x, whole.y, whole.p, strict=True)
    if 2 <= y < 6 and 2 <= x < 9
  ]
  options = {'downsample': 1.5, 'mirrored': mirrored, 'origin': 0}
  np.testing.assert_array_equal(
    to_frames(whole, 3, 300, crop=(4, 7), **options),
    to_frames(events_of(inside, (4, 7)), 3, 300, **options),
  )
  # JSON has lists.
  assert FrameSpec(2, 'span', crop=[4, 7]) == FrameSpec(2, 'span', crop=(4, 7))


# Times of ten events, in microseconds.
TIMES = (0, 4000, 12000, 25000, 37000, 41000, 58000, 63000, 70500, 89000)


def test_windows_of_pieces_are_those_of_the_whole():
  listed = [(7 + t, 0, 0, 0) for t in TIMES]
  whole = to_frames(events_of(listed), 9, 10_000)
  assert whole[:, 0, 0, 0].tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1]
  for length in (3, 1, 2):  # Windows per piece.
    pieces = []
    for origin in range(7, 7 + 90_000, length * 10_000):
      piece = events_of(listed).between(origin, origin + length * 10_000)
      pieces.append(to_frames(piece, length, 10_000, origin=origin))
    np.testing.assert_array_equal(np.concatenate(pieces)[:9], whole)


@pytest.mark.parametrize(
  ('origin', 'counts'),
  [(-9_000, [1, 1]), (3_000, [2, 0]), (88_999, [1, 0]), (89_001, [0, 0])],
)
def test_windows_begin_at_the_origin(origin, counts):
  """Events before it are left out."""
  events = events_of([(t, 0, 0, 0) for t in TIMES])
  frames = to_frames(events, 2, 10_000, origin=origin)
  assert frames.sum((1, 2, 3)).tolist() == counts
  assert not to_frames(events[:0], 2, 10_000, origin=origin).any()


@pytest.mark.parametrize(
  ('arguments', 'problem'),
  [
    (
      {'binning': 'span', 'origin': 0},
      r"is for binning 'window', not for 'span'.* train with --config\.",
    ),
    ({'window_us': 10, 'origin': 0.5}, 'whole number of microseconds, got 0.5'),
    ({'window_us': 10, 'mirrored': 1}, 'mirrored must be True or False, got 1'),
    ({'window_us': 10, 'crop': (10, 12)}, 'the sensor, 9 x 12 pixels, got 10'),
    ({'window_us': 10, 'crop': (9, 13)}, 'the sensor, 9 x 12 pixels, got 9 x'),
    ({'window_us': 10, 'crop': (0, 5)}, 'positive whole numbers, got .0, 5'),
    ({'window_us': 10, 'crop': (5,)}, r'crop must be \(height, width\), got'),
    ({'window_us': 10, 'crop': 5}, r'crop must be \(height, width\), got 5'),
    ({'window_us': 10, 'crop': (5, 2.5)}, 'positive whole numbers, got .5, 2'),
  ],
)
def test_mistakes_of_origin_mirror_and_crop(arguments, problem):
  with pytest.raises(UserError, match=problem):
    to_frames(events_of([(0, 0, 0, 0)]), 2, **arguments)


def test_published_frames_of_cifar10_dvs():
  """They are [polarity, 127 - bits 1 to 7, bits 8 to 14] of the address."""
  random = np.random.default_rng(0)
  address = random.integers(0, 1 << 15, 3000)
  content = b'#!AER-DAT2.0\n' + b''.join(
    struct.pack('>II', value, t) for t, value in enumerate(address.tolist())
  )
  events = read_cifar10_dvs(io.BytesIO(content))
  spec = FrameSpec(3, 'window', 1000, 3.04, mirrored=True)
  published = np.zeros((3, 42, 42, 2), int)
  upright = np.zeros((3, 42, 42, 2), int)
  low, high = address >> 1 & 127, address >> 8 & 127
  time, row, p = np.arange(3000) // 1000, (127 - low) // 3.04, address & 1
  row = row.astype(int)
  np.add.at(published, (time, row, (high // 3.04).astype(int), p), 1)
  np.add.at(upright, (time, row, ((127 - high) // 3.04).astype(int), p), 1)
  np.testing.assert_array_equal(spec.frames(events), published)
  plain = dataclasses.replace(spec, mirrored=False)
  np.testing.assert_array_equal(plain.frames(events), upright)
  # With 3.04, to mirror the frames is something else.
  assert np.any(published != upright[:, :, ::-1])


def test_the_largest_values_and_counts():
  spec = FrameSpec(10**5, 'window', 10**12, 10**4)
  listed = [*[(0, 0, 0, 0)] * 255, *[(10**12, 11, 8, 1)] * 256]
  frames = spec.frames(events_of(listed))
  assert frames.shape == (10**5, 1, 1, 2)
  assert frames[0, 0, 0, 0] == frames[1, 0, 0, 1] == 255
  assert np.count_nonzero(frames) == 2


@pytest.mark.parametrize(
  ('arguments', 'problem'),
  [
    ((4, 'windows', 10), "'windows' is unknown.*did you mean 'window'"),
    ((4, ''), 'known: window, span, count'),
    ((4, 'window'), r"above 0.*got 'window' with 0 us"),
    ((4, 'span', 10), "got 'span' with 10 us"),
    ((4, 'count', -10), 'window_us must be a whole number from 0 to .*, got -'),
    ((4, 'window', 10**12 + 1), 'from 0 to 10{12}, got 10{11}1'),
    ((4, 'window', 0.5), 'a whole number from .*, got 0.5'),
    ((0, 'span'), 'time_steps must be a whole number from 1 to 100000, got 0'),
    ((100_001, 'span'), 'got 100001'),
    (('4', 'span'), "got '4'"),
    (
      (4, 'span', 0, 0.99),
      'must be a number from 1 to 10000, got 0.99',
    ),
    ((4, 'span', 0, float('nan')), 'got nan'),
    ((4, 'span', 0, 10_000.1), 'got 10000.1'),
    ((4, 'span', 0, (2, 2)), r'got \(2, 2\)'),
  ],
)
def test_mistakes(arguments, problem):
  with pytest.raises(UserError, match=problem) as info:
    FrameSpec(*arguments)
  assert '\n' not in str(info.value)
  with pytest.raises(UserError, match='not of ndarray'):
    to_frames(np.zeros(3), 4, 10)
