"""Events of a camera, as readers return them and frames are made of them."""

import dataclasses
import numbers

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from mlf_jax.errors import UserError

# Most pixels along a side that a column of `Events` can number.
_MOST_PIXELS = 1 << 16
# Dtypes of the columns of `Events`.
DTYPES = {'t': np.int64, 'x': np.uint16, 'y': np.uint16, 'p': np.uint8}


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
  """One recording, or a part of one.

  Raises `UserError` for a column of another type or length.

  Attributes:
    t: time of each event in microseconds, not decreasing.
    x: column of the pixel, 0 to width - 1.
    y: row of the pixel, 0 to height - 1.
    p: polarity, 1 where the light became brighter, else 0.
    sensor_size: (height, width) of the sensor in pixels.
    dropped: number of entries of the file that were left out: events marked
      invalid, and entries that are no change of light (special events, clock
      markers).
  """

  t: Int64[np.ndarray, 'event']
  x: UInt16[np.ndarray, 'event']
  y: UInt16[np.ndarray, 'event']
  p: UInt8[np.ndarray, 'event']
  sensor_size: tuple[int, int]
  dropped: int = 0

  def __post_init__(self):
    """Checks types and lengths, but not values, which readers check."""
    for field, dtype in DTYPES.items():
      column = getattr(self, field)
      if getattr(column, 'dtype', None) != dtype or column.shape != (
        len(self),
      ):
        raise UserError(
          f'{field} must be an array of {np.dtype(dtype)}, one entry per '
          'event; `from_array` makes events of other types'
        )

  def __len__(self) -> int:
    """Returns the number of events."""
    return len(self.t)

  @property
  def nbytes(self) -> int:
    """Bytes of the four columns."""
    return self.t.nbytes + self.x.nbytes + self.y.nbytes + self.p.nbytes

  def between(self, start: int, stop: int) -> 'Events':
    """The events with `start <= t < stop`, microseconds; views, no copies."""
    return self[slice(*np.searchsorted(self.t, [start, stop]))]

  def __getitem__(self, part: slice) -> 'Events':
    """The events of a slice; views, no copies."""
    if not isinstance(part, slice):
      raise UserError(f'events are taken by a slice, not by {part!r}')
    columns = (column[part] for column in (self.t, self.x, self.y, self.p))
    return Events(*columns, self.sensor_size)

  def to_array(self) -> np.ndarray:
    """The events as a structured array with the fields t, x, y, p.

    The tonic library's transforms take such arrays. Rows and columns are int16
    as tonic's own are, but int32 if the sensor is too large for that.
    """
    place = np.int16 if max(self.sensor_size) <= 1 << 15 else np.int32
    array = np.empty(
      len(self),
      [('t', np.int64), ('x', place), ('y', place), ('p', bool)],
    )
    for field in array.dtype.names:
      array[field] = getattr(self, field)
    return array


def require_sensor_size(sensor_size: tuple[int, int]) -> None:
  """Raises `UserError` unless it is (height, width) of a possible sensor."""
  sizes = sensor_size if isinstance(sensor_size, (tuple, list)) else ()
  if len(sizes) != 2 or not all(
    isinstance(size, numbers.Integral) and 1 <= size <= _MOST_PIXELS
    for size in sizes
  ):
    raise UserError(
      f'sensor_size must be (height, width), 1 to {_MOST_PIXELS} pixels each, '
      f'got {sensor_size!r}'
    )


def from_array(array: np.ndarray, sensor_size: tuple[int, int]) -> Events:
  """Makes events of a structured array, such as those of the tonic library.

  Args:
    array: [event] with integer fields t (microseconds, not decreasing), x, y
      and p (0 or 1, or boolean), in any order.
    sensor_size: (height, width) in pixels, at most 65,536 each; tonic's own
      tuple has the width first.

  Returns:
    The events.

  Raises:
    UserError: a field is missing, or a value outside its range.
  """
  events = from_unordered_array(array, sensor_size)
  # Compared, not subtracted: a difference may need more than 64 bits.
  back = np.flatnonzero(events.t[1:] < events.t[:-1])
  if back.size:
    i = back[0] + 1
    raise UserError(
      f'event {i} goes back in time, from {events.t[i - 1]} to {events.t[i]} '
      "us: sort the array first, array[np.argsort(array['t'], kind='stable')]"
    )
  return events


def from_unordered_array(
  array: np.ndarray, sensor_size: tuple[int, int], first: int = 0
) -> Events:
  """As `from_array`, but time may go back, which the caller has to look for.

  Args:
    array: as for `from_array`.
    sensor_size: (height, width) in pixels.
    first: number of the first event in messages.

  Raises:
    UserError: as `from_array`.
  """
  require_sensor_size(sensor_size)
  array = np.asarray(array)
  names = array.dtype.names or ()
  missing = [field for field in 'txyp' if field not in names]
  if missing or array.ndim != 1:
    raise UserError(
      'events come as a structured array [event] with the fields t, x, y, p; '
      f'got shape {array.shape} with '
      + (f'fields {", ".join(names)}' if names else 'no fields')
    )
  for field in 'txyp':
    kind = array.dtype[field].kind
    if kind not in ('biu' if field == 'p' else 'iu'):
      raise UserError(
        f'field {field!r} must hold integers, got {array.dtype[field]}'
      )
  height, width = sensor_size
  for field, low, size in (
    ('t', -(2**63), 2**63),
    ('y', 0, height),
    ('x', 0, width),
    ('p', 0, 2),
  ):
    wrong = np.flatnonzero((array[field] < low) | (array[field] >= size))
    if wrong.size:
      raise UserError(
        f'event {first + wrong[0]} has {field} = {array[field][wrong[0]]}, '
        f'outside {low} to {size - 1} (sensor of height {height} and width '
        f'{width})'
      )
  return Events(
    array['t'].astype(np.int64),
    array['x'].astype(np.uint16),
    array['y'].astype(np.uint16),
    array['p'].astype(np.uint8),
    tuple(sensor_size),
  )
