"""Frames of a recording: events counted per timestep, pixel and polarity."""

import dataclasses
import numbers
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Int, UInt8

from mlf_jax.data.events.events import Events
from mlf_jax.errors import UserError, require_positive_integers, unknown

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
    crop: (height, width) of the middle of the sensor, which is all that is
      kept, before it is mirrored and downsampled; (0, 0) keeps the sensor. If
      a margin is odd, there is a pixel less above or to the left.
  """

  time_steps: int
  binning: str = 'window'
  window_us: int = 0
  downsample: float = 1.0
  mirrored: bool = False
  crop: tuple[int, int] = (0, 0)

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
    is_pair = isinstance(self.crop, (tuple, list)) and len(self.crop) == 2
    if not is_pair or any(self.crop):
      require_positive_integers(crop=self.crop)
      if not is_pair:
        raise UserError(f'crop must be (height, width), got {self.crop!r}')
    # JSON gives a list, which cannot be hashed.
    object.__setattr__(self, 'crop', tuple(self.crop))
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
    # Without a crop the name has none, as before there were crops.
    crop = '_crop{}x{}'.format(*self.crop) if any(self.crop) else ''
    return (
      f't{self.time_steps}_{self.binning}{window}_down{float(self.downsample)}'
      f'{mirrored}{crop}'
    )

  def shape(self, sensor_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Shape of the frames of a recording.

    Args:
      sensor_size: (height, width) of the sensor in pixels.

    Returns:
      (time, height, width, 2).

    Raises:
      UserError: the crop is larger than the sensor.
    """
    rows, columns = self._pixels(sensor_size)
    return (self.time_steps, int(rows.max()) + 1, int(columns.max()) + 1, 2)

  def _pixels(
    self, sensor_size: tuple[int, int]
  ) -> tuple[Int[np.ndarray, 'height'], Int[np.ndarray, 'width']]:
    """Frame row of each sensor row and column of each column; -1 is cropped."""
    height, width = sensor_size
    kept = self.crop if any(self.crop) else (height, width)
    if kept[0] > height or kept[1] > width:
      raise UserError(
        f'crop must be at most the sensor, {height} x {width} pixels, got '
        f'{kept[0]} x {kept[1]}'
      )
    pixels = []
    for side, part in zip(sensor_size, kept, strict=True):
      of_side = np.full(side, -1, np.int32)
      start = (side - part) // 2
      of_side[start : start + part] = np.arange(part) // self.downsample
      pixels.append(of_side)
    if self.mirrored:
      start = (width - kept[1]) // 2
      middle = pixels[1][start : start + kept[1]]
      middle[:] = middle[::-1].copy()
    return tuple(pixels)

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
          'frames depend on the whole recording: train with '
          '--config.data.binning=window --config.data.window_ms=10.0, or give '
          "FrameSpec(binning='window', window_us=10_000)"
        )
      if not isinstance(origin, numbers.Integral):
        raise UserError(
          f'origin must be a whole number of microseconds, got {origin!r}'
        )
    if self.binning == 'count':
      return self._counts(len(events))
    if not len(events):
      return np.zeros(self.time_steps + 1, np.int64)
    first = int(events.t[0] if origin is None else origin)
    return np.searchsorted(events.t, self._times(first, int(events.t[-1])))

  def _counts(self, total: int) -> Int[np.ndarray, 'time_steps+1']:
    """Number of the event with which each part of a count begins."""
    return np.arange(self.time_steps + 1) * total // self.time_steps

  def _times(self, first: int, last: int) -> list[int]:
    """Bounds of windows or equal parts, between the first and last event."""
    # Python's integers: the products may need more than 64 bits.
    length, steps = max(0, last + 1 - first), range(self.time_steps + 1)
    if self.binning == 'window':
      return [first + min(step * self.window_us, length) for step in steps]
    # Ceiling, so that an event at time t is in part
    # (t - first) * time_steps // length.
    return [first - (-step * length // self.time_steps) for step in steps]

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
    frames = np.zeros(self.shape(events.sensor_size), np.uint8)
    self._add(frames, events, self.edges(events, origin))
    return frames

  def frames_of_pieces(
    self, pieces: Callable[[], Iterable[Events]]
  ) -> UInt8[np.ndarray, 'time height width 2']:
    """Counts the events of a recording that comes in pieces.

    The frames are those of the whole recording, of which one piece at a time is
    in memory. Binning 'window' goes through the pieces once, up to the end of
    the last window; the others need the end of the recording first, and go
    through it twice.

    Args:
      pieces: called once or twice, returns the pieces of the recording in
        order, at least one; a recording without events has an empty one.
    """
    first, last, total = None, None, 0
    if self.binning != 'window':
      for piece in pieces():
        if len(piece):
          first = int(piece.t[0]) if first is None else first
          last = int(piece.t[-1])
          total += len(piece)
    frames, seen = None, 0
    for piece in pieces():
      if frames is None:
        frames = np.zeros(self.shape(piece.sensor_size), np.uint8)
      if not len(piece):
        continue
      if self.binning == 'count':
        edges = np.clip(self._counts(total) - seen, 0, len(piece))
      else:
        first = int(piece.t[0]) if first is None else first
        end = int(piece.t[-1]) if last is None else last
        edges = np.searchsorted(piece.t, self._times(first, end))
      self._add(frames, piece, edges)
      seen += len(piece)
      if self.binning == 'window' and edges[-1] < len(piece):
        break
    return frames

  def _add(self, frames, events, edges):
    """Adds events to frames that hold earlier ones; counts stay at 255."""
    _, height, width, _ = frames.shape
    rows, columns = self._pixels(events.sensor_size)
    # Every cell of a frame has one number, the sum of these per coordinate.
    row, column = rows * (2 * width), columns * 2
    cells = frames.reshape(self.time_steps, height * width * 2)
    for frame, start, stop in zip(cells, edges[:-1], edges[1:], strict=True):
      if start == stop:
        continue
      part = events[start:stop]
      cell = row[part.y]
      cell += column[part.x]
      cell += part.p
      if any(self.crop):
        cell = cell[(rows[part.y] >= 0) & (columns[part.x] >= 0)]
      counts = np.bincount(cell, minlength=frame.size)
      counts += frame
      np.minimum(counts, _MOST, out=counts)
      frame[:] = counts


def to_frames(
  events: Events,
  time_steps: int,
  window_us: int = 0,
  *,
  binning: str = 'window',
  downsample: float = 1.0,
  mirrored: bool = False,
  crop: tuple[int, int] = (0, 0),
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
    crop: (height, width) of the middle of the sensor, which is all that is
      kept, before it is mirrored and downsampled; (0, 0) keeps the sensor.
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
  spec = FrameSpec(time_steps, binning, window_us, downsample, mirrored, crop)
  return spec.frames(events, origin)
