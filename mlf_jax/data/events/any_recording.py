"""Reads a recording in any known format, chosen by the suffix of its file."""

import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from mlf_jax.data.events import array_files, formats
from mlf_jax.data.events.events import Events
from mlf_jax.data.events.formats import BACKWARDS, Sensor
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.events.recording_file import RecordingError, opened
from mlf_jax.errors import UserError, require_positive_integers, unknown

# What faery calls the formats that it reads.
_FAERY = {'.raw': 'evt', '.dat': 'dat', '.aedat4': 'aedat', '.es': 'es'}
_ARRAYS = ('.npy', '.npz', '.h5', '.hdf5')
SUFFIXES = ('.aedat', '.bin', *_FAERY, *_ARRAYS)
# The columns of a piece take 13 bytes per event.
_EVENTS_PER_PIECE = 1 << 20

Path = str | os.PathLike


def read_recording(
  path: Path, sensor: Sensor = '', *, backwards: str = 'error'
) -> Events:
  """Reads a recording as a whole.

  | suffix | format | sensor |
  | --- | --- | --- |
  | `.aedat` | AEDAT 2.0, 3.1 (`read_aedat`) | its name, 'dvs128' by default |
  | `.aedat4`, `.aedat` | AEDAT 4 | the file says it |
  | `.bin` | N-MNIST, N-Caltech101 (`read_n_mnist`) | needed |
  | `.raw` | Prophesee EVT 2, EVT 3 | the file says it, or it is needed |
  | `.dat` | Prophesee DAT | the file says it, or it is needed |
  | `.es` | Event Stream | the file says it |
  | `.npy`, `.npz` | arrays t, x, y, p (see `array_files`) | needed |
  | `.h5`, `.hdf5` | the same in HDF5 (see `array_files`) | needed |

  AEDAT 4, EVT, DAT and Event Stream need faery, HDF5 needs h5py; both come with
  `pip install "mlf_jax[events]"`.

  Args:
    path: the file; upper and lower case of its suffix are the same.
    sensor: (height, width) of the sensor in pixels, 'HEIGHTxWIDTH' or the name
      of one of `formats.SENSORS`; '' if the file says it. A file that says
      another size is refused.
    backwards: 'error', or 'sort': what to do if time goes back from an event
      to the next.

  Returns:
    The events, times in microseconds.

  Raises:
    RecordingError: the file is damaged, or not of the format of its suffix.
    UserError: the file cannot be opened, its suffix is unknown, the size of
      its sensor is not, or a package is missing.
  """
  if backwards not in BACKWARDS:
    raise unknown('backwards', backwards, BACKWARDS)
  (events,) = _pieces(path, sensor, sys.maxsize, backwards)
  if backwards == 'error':
    _require_order(events, path)
  elif (events.t[1:] < events.t[:-1]).any():
    order = np.argsort(events.t, kind='stable')
    columns = (c[order] for c in (events.t, events.x, events.y, events.p))
    events = Events(*columns, events.sensor_size, events.dropped)
  return events


def recording_pieces(
  path: Path,
  sensor: Sensor = '',
  *,
  events_per_piece: int = _EVENTS_PER_PIECE,
) -> Iterator[Events]:
  """Yields a recording in pieces, for one that is larger than the memory.

  Formats, arguments and errors as of `read_recording`. One piece at a time is
  in memory, except for AEDAT 2.0 and 3.1, `.bin` and `.npz`, which are read
  whole. Joined, the pieces are the whole recording.

  Args:
    path: the file.
    sensor: see `read_recording`.
    events_per_piece: events in each piece but the last.

  Yields:
    At least one piece, empty if there are no events.
  """
  require_positive_integers(events_per_piece=events_per_piece)
  last, number = None, 0
  for piece in _pieces(path, sensor, events_per_piece, 'error'):
    _require_order(piece, path, last, number)
    if len(piece):
      last, number = piece.t[-1], number + len(piece)
    yield piece


def frames_of_file(
  path: Path, spec: FrameSpec, sensor: Sensor = ''
) -> UInt8[np.ndarray, 'time height width 2']:
  """Makes the frames of a recording without holding all of it in memory.

  They are those of `spec.frames(read_recording(path, sensor))`. Binning
  'window' reads the file up to the end of the last window, the others read it
  twice.

  Args:
    path: the file.
    spec: how to make frames.
    sensor: see `read_recording`.

  Raises:
    UserError: as `read_recording`; the crop is larger than the sensor.
  """
  return spec.frames_of_pieces(lambda: recording_pieces(path, sensor))


def _pieces(path, sensor, events_per_piece, backwards) -> Iterator[Events]:
  """Yields pieces, in which time may go back."""
  if not isinstance(path, (str, os.PathLike)):
    raise UserError(f'a recording is named by its path, got {path!r}')
  path = os.path.expanduser(path)
  suffix = pathlib.PurePath(path).suffix.lower()
  if suffix not in SUFFIXES:
    raise UserError(
      f'{path} has no suffix of a recording: {", ".join(SUFFIXES)}'
    )
  if suffix == '.aedat':
    with opened(path) as source:
      if source.peek(10) == b'#!AER-DAT4':
        suffix = '.aedat4'
  if suffix == '.aedat':
    events = formats.read_aedat(
      path, sensor=sensor or 'dvs128', backwards=backwards
    )
    yield from _slices(events, events_per_piece)
    return
  size = formats.size_of_sensor(sensor) if sensor else None
  if suffix in _FAERY:
    # It needs a package that may be missing.
    from mlf_jax.data.events import faery_files

    yield from faery_files.faery_pieces(
      path, _FAERY[suffix], size, events_per_piece
    )
    return
  if size is None:
    raise UserError(
      f'{path} does not say the size of its sensor: give sensor=(height, '
      'width), on the command line as HEIGHTxWIDTH, such as '
      '--config.data.sensor=180x240'
    )
  if suffix in _ARRAYS:
    yield from array_files.array_pieces(path, suffix, size, events_per_piece)
  else:
    events = formats.read_n_mnist(path, sensor=size, backwards=backwards)
    yield from _slices(events, events_per_piece)


def _slices(events, events_per_piece):
  if len(events) <= events_per_piece:
    yield events
    return
  for start in range(0, len(events), events_per_piece):
    yield events[start : start + events_per_piece]


def _require_order(events, path, last=None, number=0):
  """Raises if time goes back, also from `last`, the time before the events."""
  if not len(events):
    return
  t = events.t
  last = t[0] if last is None else last
  if t[0] < last or (t[1:] < t[:-1]).any():
    before = np.concatenate([[last], t[:-1]])
    i = int(np.argmax(t < before))
    raise RecordingError(
      f'{path}: event {number + i} goes back in time, from {before[i]} to '
      f"{t[i]} us; np.save('sorted.npy', read_recording(path, sensor, "
      "backwards='sort').to_array()) makes a file of the events in order"
    )
