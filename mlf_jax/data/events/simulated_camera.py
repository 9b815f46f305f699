"""A simulated event camera: from a video to events.

Each pixel remembers the logarithm of the intensity at its last event, and emits
an event whenever the logarithm has moved by a threshold from there. Between two
frames of the video the logarithm moves in a straight line.

Sources: P. Lichtsteiner, C. Posch, T. Delbruck, "A 128x128 120 dB 15 us Latency
Asynchronous Temporal Contrast Vision Sensor", IEEE JSSC 2008 (the pixel);
H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an Open Event Camera Simulator",
CoRL 2018 (the model, thresholds that differ). Left out: the limited bandwidth
and the refractory period of a pixel.

The same video gives the same events on every processor.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from mlf_jax.data.events.events import Events
from mlf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class EventCamera:
  """A simulated sensor; equal cameras record equal events.

  Raises `UserError` for a value outside its range.

  Attributes:
    sensor_size: (height, width) in pixels.
    threshold: mean threshold of the pixels, in units of the natural logarithm
      of the intensity.
    mismatch: standard deviation of the thresholds relative to `threshold`; each
      pixel draws its thresholds once, one for each polarity.
    noise_hz: mean rate of events without a cause, per pixel; both polarities
      are equally likely.
    seed: seed of the mismatch, not negative.
  """

  sensor_size: tuple[int, int]
  threshold: float = 0.25
  mismatch: float = 0.0
  noise_hz: float = 0.0
  seed: int = 0

  def __post_init__(self):
    """Validates the attributes."""
    if min(self.sensor_size) < 1:
      raise UserError(f'a sensor has pixels, not {self.sensor_size}')
    if not 0 < self.threshold < float('inf'):
      raise UserError(f'threshold must be positive, got {self.threshold}')
    if not 0 <= self.mismatch < 1:
      raise UserError(f'mismatch must lie in [0, 1), got {self.mismatch}')
    if not 0 <= self.noise_hz < float('inf'):
      raise UserError(f'noise_hz must be at least 0, got {self.noise_hz}')
    if self.seed < 0:
      raise UserError(f'seed must be at least 0, got {self.seed}')

  def thresholds(self) -> Float64[np.ndarray, '2 height width']:
    """Thresholds of every pixel for darker (0) and brighter (1) events."""
    # RandomState's stream is frozen by NumPy; default_rng's may change.
    random = np.random.RandomState(self.seed)
    normal = random.standard_normal((2, *self.sensor_size))
    # A threshold near 0 would let a pixel fire without end.
    relative = np.maximum(1 + self.mismatch * normal, 0.1)
    return self.threshold * _rounded(relative)

  def record(
    self,
    videos: Float[np.ndarray, 'time video height width'],
    times: Int64[np.ndarray, 'time'],
    noise_seeds: Sequence[int],
  ) -> list[Events]:
    """Films several videos with the same frame times.

    Args:
      videos: intensities in any unit, positive; pixels see nine decimals of
        their logarithm. A pixel's memory starts with the first frame.
      times: time of each frame in microseconds, increasing.
      noise_seeds: seed of the noise in each video, not negative.

    Returns:
      The events of each video, sorted by time, then row, column and polarity;
      the same on every processor. Noise events do not change the memory of a
      pixel.

    Raises:
      UserError: shapes do not agree, an intensity is not positive and finite,
        or times do not increase.
    """
    videos, times = np.asarray(videos), np.asarray(times, np.int64)
    self._check(videos, times, noise_seeds)
    height, width = self.sensor_size
    # Each event is encoded as one number, so that sorting numbers sorts events.
    shape = (len(noise_seeds), int(times[-1] - times[0]) + 1, height * width, 2)

    def codes(video, t, pixel, p):
      t = np.asarray(t - times[0], np.int64)
      return ((video * shape[1] + t) * shape[2] + pixel) * shape[3] + p

    events = [codes(*e) for e in _crossings(videos, times, self.thresholds())]
    for video, seed in enumerate(noise_seeds):
      events.append(codes(video, *self._noise(times, seed)))
    events = np.sort(np.concatenate(events))
    bounds = np.arange(shape[0] + 1) * (shape[1] * shape[2] * shape[3])
    bounds = np.searchsorted(events, bounds)
    _, t, pixel, p = np.unravel_index(events, shape)
    y, x = np.divmod(pixel, width)
    whole = Events(
      t + times[0],
      x.astype(np.uint16),
      y.astype(np.uint16),
      p.astype(np.uint8),
      self.sensor_size,
    )
    return [whole[start:stop] for start, stop in itertools.pairwise(bounds)]

  def _noise(self, times, seed):
    """Returns time, pixel and polarity of the noise events of a video."""
    random = np.random.RandomState(seed)
    size = self.sensor_size[0] * self.sensor_size[1]
    length = times[-1] - times[0]
    count = random.poisson(self.noise_hz * size * length / 1e6)
    t = times[0] + length * random.random_sample(count)
    return t, random.randint(0, size, count), random.randint(0, 2, count)

  def _check(self, videos, times, noise_seeds):
    shape = (len(times), len(noise_seeds), *self.sensor_size)
    if videos.shape != shape or not videos.size:
      raise UserError(
        f'videos of shape {videos.shape}: {len(times)} times, '
        f'{len(noise_seeds)} seeds and this sensor make it {shape}, and there '
        'has to be one of each'
      )
    if not (videos.min() > 0 and np.isfinite(videos.max())):
      raise UserError(
        'intensities must be positive and finite: pixels see their logarithm'
      )
    if not np.all(np.diff(times) > 0):
      raise UserError('the times of the frames must increase')


def _rounded(values):
  """Rounds to nine decimals, in float64, for equal events on every processor.

  Processors disagree about the last bit of a logarithm, and of the sums that an
  intensity may come from. Pixels compare and accumulate these values: a
  different bit could become a different event. The ninth decimal is far from
  the last bit and far below a threshold; all later arithmetic is exact or
  rounded as IEEE 754 demands.
  """
  return np.round(values, 9)


def _crossings(videos, times, thresholds):
  """Yields events: the logarithm passes the next threshold of a pixel.

  Yields:
    Arrays of video, time, pixel and polarity, [event] each.
  """
  darker, brighter = thresholds.reshape(2, -1)

  def logarithm(frame):
    return _rounded(np.log(frame, dtype=np.float64)).reshape(-1, darker.size)

  before = logarithm(videos[0])
  memory = before.copy()
  for start, stop, frame in zip(times[:-1], times[1:], videos[1:], strict=True):
    now = logarithm(frame)
    moved = now - memory
    video, pixel = np.nonzero((moved >= brighter) | (moved <= -darker))
    p = moved[video, pixel] > 0
    threshold = np.where(p, brighter[pixel], -darker[pixel])
    # Few pixels pass a threshold within a frame, and fewer a second one.
    while video.size:
      memory[video, pixel] += threshold
      seen, was = memory[video, pixel], before[video, pixel]
      now_here = now[video, pixel]
      # Clipped, because rounding may leave the frame.
      share = ((seen - was) / (now_here - was)).clip(0, 1)
      yield video, start + (stop - start) * share, pixel, p
      again = (now_here - seen) / threshold >= 1
      video, pixel, p, threshold = (
        a[again] for a in (video, pixel, p, threshold)
      )
    before = now
