"""The simulated event camera, against closed forms and a loop over pixels."""

import numpy as np
import pytest

from mlf_jax.data.events.simulated_camera import EventCamera
from mlf_jax.errors import UserError

PIXEL = EventCamera((1, 1), threshold=0.2)


def film(logarithm, camera=PIXEL, times=(0, 1000)):
  """Events of one video whose intensity has the given logarithm."""
  logarithm = np.reshape(logarithm, (-1, 1, *camera.sensor_size))
  (events,) = camera.record(np.exp(logarithm), times, noise_seeds=[0])
  return events


@pytest.mark.parametrize(('sign', 'polarity'), [(1, 1), (-1, 0)])
@pytest.mark.parametrize('frames', [2, 5])
def test_a_straight_line_passes_thresholds_at_known_times(
  sign, polarity, frames
):
  # 7.5 thresholds in a millisecond, through any number of frames.
  line = 0.3 + sign * np.linspace(0, 7.5 * 0.2, frames)
  events = film(line, times=np.linspace(0, 1000, frames).astype(int))
  np.testing.assert_allclose(events.t, 1000 / 7.5 * np.arange(1, 8), atol=1)
  np.testing.assert_array_equal(events.p, polarity)
  # Nothing fires below a threshold, or without a second frame.
  assert not len(film([0, 0.99 * 0.2])) and not len(film([0.7], times=[3]))


def test_the_change_is_counted_from_the_last_event():
  # Up by 0.75 thresholds twice: an event after 1.0. Down by 1.25, which is 0.75
  # below the event; the next 0.25 down complete a threshold.
  path = 0.2 * np.cumsum([0, 0.75, 0.75, -1.25, -0.5])
  events = film(path, times=[0, 100, 200, 300, 400])
  np.testing.assert_array_equal(events.p, [1, 0])
  np.testing.assert_allclose(events.t, [100 + 100 / 3, 350], atol=1)


def reference(video, times, thresholds):
  """(t, y, x, p) of each event of one video, by a loop over everything."""
  video, found = np.round(np.log(video, dtype=np.float64), 9), []
  for y, x in np.ndindex(video.shape[1:]):
    memory = video[0, y, x]
    for i in range(1, len(video)):
      before, now = video[i - 1, y, x], video[i, y, x]
      for p, threshold in ((0, -thresholds[0, y, x]), (1, thresholds[1, y, x])):
        while (now - memory) / threshold >= 1:
          memory += threshold
          share = float(np.clip((memory - before) / (now - before), 0, 1))
          t = int(times[i - 1] + (times[i] - times[i - 1]) * share)
          found.append((t, y, x, p))
  return sorted(found)


def as_tuples(events):
  columns = (events.t, events.y, events.x, events.p)
  return list(zip(*(c.tolist() for c in columns), strict=True))


def test_many_videos_are_filmed_like_each_pixel_alone():
  random = np.random.RandomState(3)
  camera = EventCamera((3, 4), threshold=0.3, mismatch=0.2)
  videos = np.exp(np.cumsum(0.4 * random.standard_normal((20, 5, 3, 4)), 0))
  times = 50_000 + np.cumsum(random.randint(1, 2000, 20))
  recordings = camera.record(videos, times, range(5))
  for i, events in enumerate(recordings):
    expected = reference(videos[:, i], times, camera.thresholds())
    assert as_tuples(events) == expected
    assert {0, 1} == set(events.p.tolist()) and len(events) > 100
    assert events.sensor_size == (3, 4)
    types = [str(c.dtype) for c in (events.t, events.x, events.y, events.p)]
    assert types == ['int64', 'uint16', 'uint16', 'uint8']


@pytest.mark.parametrize('sign', [-1, 1])
def test_last_bits_do_not_decide(sign):
  # At a whole number of thresholds, the last bit would decide about an event.
  for steps in range(1, 50):
    intensity = np.exp(np.array([0, sign * steps * 0.2]))
    expected = as_tuples(film(np.log(intensity)))
    for up in (0, np.inf):
      near = np.nextafter(intensity, up).reshape(2, 1, 1, 1)
      (events,) = PIXEL.record(near, (0, 1000), noise_seeds=[0])
      assert as_tuples(events) == expected


def test_thresholds_are_a_fixed_pattern_of_the_sensor():
  camera = EventCamera((40, 50), threshold=0.4, mismatch=0.1, seed=1)
  thresholds = camera.thresholds()
  np.testing.assert_array_equal(thresholds, camera.thresholds())
  np.testing.assert_allclose(thresholds.mean((1, 2)), 0.4, rtol=0.01)
  np.testing.assert_allclose(thresholds.std((1, 2)), 0.04, rtol=0.1)
  other = EventCamera((40, 50), threshold=0.4, mismatch=0.1, seed=2)
  for pattern in (other.thresholds(), thresholds[::-1]):
    assert not np.any(thresholds == pattern)
  even = EventCamera((2, 3), threshold=0.4).thresholds()
  np.testing.assert_array_equal(even, np.full((2, 2, 3), 0.4))
  # Draws come through a logarithm, whose last bit differs between processors.
  decimals = 1e9 * (thresholds / 0.4)
  np.testing.assert_allclose(decimals, np.round(decimals), rtol=0, atol=1e-5)


def test_noise_has_its_rate_everywhere_and_all_the_time():
  camera = EventCamera((4, 5), noise_hz=100)
  still = np.ones((2, 3, 4, 5))
  times = [1_000_000, 3_000_000]
  recordings = camera.record(still, times, noise_seeds=[7, 8, 7])
  same = [as_tuples(events) for events in recordings]
  assert same[0] == same[2] != same[1]
  assert same == [
    as_tuples(events) for events in camera.record(still, times, [7, 8, 7])
  ]
  events = recordings[0]
  # Poisson: the standard deviation is the square root of the number.
  assert abs(len(events) - 4000) < 4 * 4000**0.5
  counts = np.zeros((2, 4, 5))
  np.add.at(counts, (events.p, events.y, events.x), 1)
  assert np.all(abs(counts - 100) < 4.5 * 10)
  assert np.all(np.diff(events.t) >= 0)
  halves = np.histogram(events.t, [1_000_000, 2_000_000, 3_000_000])[0]
  assert halves.sum() == len(events)
  assert np.all(abs(halves - 2000) < 4 * 2000**0.5)


def test_an_impossible_camera_is_refused():
  nan, inf = float('nan'), float('inf')
  for name, values in {
    'threshold': (0.0, nan),
    'mismatch': (-0.1, 1.0),
    'noise_hz': (-1.0, inf),
    'seed': (-1,),
  }.items():
    for value in values:
      with pytest.raises(UserError, match=name):
        EventCamera((2, 2), **{name: value})
  with pytest.raises(UserError, match='a sensor has pixels'):
    EventCamera((0, 3))


def test_an_impossible_video_is_refused():
  video = np.ones((3, 1, 1, 1))
  for wrong, times, match in (
    (video[0], [0, 1, 2], r'shape \(1, 1, 1\).*3 times, 1 seeds.*\(3, 1, 1, 1'),
    (video, [0, 1], r'2 times.*\(2, 1, 1, 1\)'),
    (video[:0], [], '0 times'),
    (0 * video, [0, 1, 2], 'positive'),
    (np.nan * video, [0, 1, 2], 'positive'),
    (np.inf * video, [0, 1, 2], 'finite'),
    (video, [0, 2, 2], 'increase'),
  ):
    with pytest.raises(UserError, match=match):
      PIXEL.record(wrong, times, [0])
