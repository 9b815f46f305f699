"""Frames of a recording: events counted per timestep, pixel and polarity."""

import dataclasses
import numbers

import numpy as np
from jaxtyping import Int, UInt8

from mlf_jax.data.events.events import Events
from mlf_jax.errors import UserError, unknown

BINNINGS = ('window', 'span', 'count')
_MOST = np.iinfo(np.uint8).max


@dataclasses.dataclass(frozen=True)
class FrameSpec:
  """Specification that decides how the frames of a recording are made.

  Raises `UserError` for a value outside its range.

  Attributes:
    time_steps: frames per recording, at most 100,000.
    binning: 'window': windows of fixed length from the first event on, as in
      the paper; 'span': equal parts of the whole recording; 'count': parts
      with equally many events.
    window_us: length of a window in microseconds, at most 10**12, which is
      twelve days; 0 for the other binnings.
    downsample: sensor pixels per frame pixel along each side, at most 10,000;
      a fraction is allowed.
    mirrored: mirrors the sensor left and right before it is downsampled. The
      published implementation's frames of CIFAR10-DVS are mirrored so. With a
      fraction, frames that are mirrored afterwards are other frames.
  """

  time_steps: int
  binning: str = 'window'
  window_us: int = 0
  downsample: float = 1.0
  mirrored: bool = False

  def __post_init__(self):
    """Validates the attributes."""
    if self.binning not in BINNINGS:
      raise unknown('binning', self.binning, BINNINGS)
    # Far above the needs of any data set. Without limits, a typing error would
    # ask for more memory than there is, or for a folder with too long a name.
    for name, kind, least, most in (
      ('time_steps', numbers.Integral, 1, 10**5),
      ('window_us', numbers.Integral, 0, 10**12),
      ('downsample', numbers.Real, 1, 10**4),
    ):
      value = getattr(self, name)
      if not isinstance(value, kind) or not least <= value <= most:
        what = 'a whole number' if kind is numbers.Integral else 'a number'
        raise UserError(
          f'{name} must be {what} from {least} to {most}, got {value!r}'
        )
    if not isinstance(self.mirrored, bool):
      raise UserError(f'mirrored must be True or False, got {self.mirrored!r}')
    if (self.binning == 'window') != bool(self.window_us):
      raise UserError(
        "binning 'window' needs the length of a window, above 0, and the "
        f'others have none; got {self.binning!r} with {self.window_us} us'
      )

  @property
  def name(self) -> str:
    """Unique name of the specification, fit for a folder.

    It consists of lower-case letters, digits, `_` and `.`.
    """
    window = f'{self.window_us}us' if self.binning == 'window' else ''
    mirrored = '_mirrored' if self.mirrored else ''
    return (
      f't{self.time_steps}_{self.binning}{window}_down{float(self.downsample)}'
      f'{mirrored}'
    )

  def shape(self, sensor_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Shape of the frames of a recording.

    Args:
      sensor_size: (height, width) of the sensor in pixels.

    Returns:
      (time, height, width, 2).
    """
    height, width = (int(self._pixels(side)[-1]) + 1 for side in sensor_size)
    return (self.time_steps, height, width, 2)

  def _pixels(self, side: int) -> Int[np.ndarray, 'side']:
    """Frame pixel of each sensor pixel along a side."""
    return (np.arange(side) // self.downsample).astype(np.int32)

  def edges(
    self, events: Events, origin: int | None = None
  ) -> Int[np.ndarray, 'time_steps+1']:
    """Bounds of the frames: frame i holds events `edges[i]:edges[i + 1]`.

    Args:
      events: the recording, or a piece of one.
      origin: time in microseconds at which the first window begins; None is
        the first event.
    """
    if origin is not None:
      if self.binning != 'window':
        raise UserError(
          f"an origin is for binning 'window', not for {self.binning!r}, whose "
          'frames depend on the whole recording'
        )
      if not isinstance(origin, numbers.Integral):
        raise UserError(
          f'origin must be a whole number of microseconds, got {origin!r}'
        )
    steps = np.arange(self.time_steps + 1)
    if not len(events):
      return np.zeros_like(steps)
    if self.binning == 'count':
      return steps * len(events) // self.time_steps
    # Python's integers: the products may need more than 64 bits.
    first = int(events.t[0] if origin is None else origin)
    length = max(0, int(events.t[-1]) + 1 - first)
    if self.binning == 'window':
      begins = [min(step * self.window_us, length) for step in steps.tolist()]
    else:
      # Ceiling, so that an event at time t is in part
      # (t - first) * time_steps // length.
      begins = [-(-step * length // self.time_steps) for step in steps.tolist()]
    return np.searchsorted(events.t, [first + begin for begin in begins])

  def padded_share(self, events: Events) -> float:
    """Share of the frames that begin after the last event, 0 to 1.

    Only binning 'window' has such frames, if the recording is shorter than all
    windows together. Without events all frames count.
    """
    if not len(events):
      return 1.0
    if self.binning != 'window':
      return 0.0
    length = int(events.t[-1] - events.t[0])
    return max(0, self.time_steps - 1 - length // self.window_us) / (
      self.time_steps
    )

  def frames(
    self, events: Events, origin: int | None = None
  ) -> UInt8[np.ndarray, 'time height width 2']:
    """Counts the events per frame; the last axis is polarity (1 brighter).

    A count above 255 stays at 255. `origin` as in `edges`.
    """
    if not isinstance(events, Events):
      raise UserError(
        f'frames are made of Events, not of {type(events).__name__}; '
        '`events.from_array` makes them of a structured array'
      )
    shape = self.shape(events.sensor_size)
    _, height, width, _ = shape
    edges = self.edges(events, origin)
    # Every cell of a frame has one number, the sum of these per coordinate.
    row = self._pixels(events.sensor_size[0]) * (2 * width)
    column = self._pixels(events.sensor_size[1]) * 2
    if self.mirrored:
      column = column[::-1]
    frames = np.empty((self.time_steps, height * width * 2), np.uint8)
    for frame, start, stop in zip(frames, edges[:-1], edges[1:], strict=True):
      part = events[start:stop]
      cell = row[part.y]
      cell += column[part.x]
      cell += part.p
      counts = np.bincount(cell, minlength=frame.size)
      np.minimum(counts, _MOST, out=counts)
      frame[:] = counts
    return frames.reshape(shape)


def to_frames(
  events: Events,
  time_steps: int,
  window_us: int = 0,
  *,
  binning: str = 'window',
  downsample: float = 1.0,
  mirrored: bool = False,
  origin: int | None = None,
) -> UInt8[np.ndarray, 'time height width 2']:
  """Counts the events of a recording per timestep, pixel and polarity.

  Args:
    events: the recording.
    time_steps: number of frames.
    window_us: length of a window in microseconds; 0 for the other binnings.
    binning: 'window': windows of fixed length from the first event on, as in
      the paper; events after the last window are left out, and if the
      recording is shorter the last frames are empty. 'span': equal parts of
      the whole recording. 'count': parts with equally many events.
    downsample: sensor pixels per frame pixel along each side; 3.04 takes 128
      pixels to 42.
    mirrored: mirrors the sensor left and right before it is downsampled.
    origin: time in microseconds at which the first window begins; None is the
      first event. A recording that comes in pieces has one origin, its first
      event; the windows of a piece begin a whole number of windows after it,
      and its frames are then those of the whole. Earlier events are left out.

  Returns:
    Counts, saturating at 255; the last axis is polarity, 0 darker and 1
    brighter.

  Raises:
    UserError: a value outside its range.
  """
  spec = FrameSpec(time_steps, binning, window_us, downsample, mirrored)
  return spec.frames(events, origin)
