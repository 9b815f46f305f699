"""Events stored as arrays: `.npy`, `.npz` and HDF5 files.

The four columns are named t (microseconds, whole numbers), x, y, and p or
polarity (0 or 1):

- `.npy`: one structured array with these fields;
- `.npz`: the same as its only array, or one array per column;
- HDF5: datasets `t`, `x`, `y`, `p`, in the group `events` or at the top; or one
  dataset with these fields, `events` or `CD/events`.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from mlf_jax.data.events.events import Events, from_unordered_array
from mlf_jax.data.events.recording_file import RecordingError
from mlf_jax.errors import UserError

_LAYOUT = 't, x, y and p or polarity'
# Raised by NumPy and h5py for a damaged file.
_DAMAGED = (
  OSError,
  ValueError,
  KeyError,
  RuntimeError,
  EOFError,
  zipfile.BadZipFile,
  zlib.error,
)


def array_pieces(
  path: str, suffix: str, sensor_size: tuple[int, int], events_per_piece: int
) -> Iterator[Events]:
  """Yields a recording in pieces; only those of `.npz` are all in memory.

  Time may go back from an event to the next.

  Args:
    path: the file.
    suffix: '.npy', '.npz', '.h5' or '.hdf5'.
    sensor_size: (height, width) in pixels.
    events_per_piece: events in each piece but the last.

  Yields:
    At least one piece, empty if there are no events.

  Raises:
    RecordingError: the file is damaged or has other fields, or a value is
      outside its range.
    UserError: the file cannot be opened, or h5py is not installed.
  """
  open_file = _open_numpy if suffix in ('.npy', '.npz') else _open_hdf5()
  with contextlib.ExitStack() as stack:
    with _reading(path):
      file = open_file(path, stack)
      table = file if isinstance(file, np.ndarray) else _table(file, path)
      names, total = _checked(table, path)
    for start in range(0, max(1, total), events_per_piece):
      stop = start + events_per_piece
      with _reading(path):
        if isinstance(table, Mapping):
          columns = [table[name][start:stop] for name in names]
        else:
          part = table[start:stop]
          columns = [part[name] for name in names]
        array = np.rec.fromarrays(columns, names='t,x,y,p')
        events = from_unordered_array(array, sensor_size, start)
      yield events


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  """Makes errors one line that names the file."""
  try:
    yield
  except RecordingError:
    raise
  except UserError as error:
    raise RecordingError(f'{path}: {error}') from None
  except FileNotFoundError:
    raise UserError(f'{path} cannot be opened (No such file)') from None
  except _DAMAGED as error:
    reason = ' '.join(str(error).split())
    raise RecordingError(f'{path}: cannot be read ({reason})') from None


def _open_numpy(path, stack):
  """Opens a file of NumPy: an array, or names to arrays."""
  loaded = np.load(path, mmap_mode='r', allow_pickle=False)
  if isinstance(loaded, np.ndarray):
    return loaded
  archive = stack.enter_context(loaded)
  return {name: archive[name] for name in archive.files}


def _open_hdf5():
  """Returns a function that opens an HDF5 file."""
  try:
    import h5py
  except ModuleNotFoundError:
    raise UserError(
      'HDF5 files need h5py: pip install "mlf_jax[events]"'
    ) from None
  return lambda path, stack: stack.enter_context(h5py.File(path, 'r'))


def _table(file, path):
  """Finds the columns, a mapping or a structured array or dataset."""
  if {'t', 'x', 'y'} <= {*file}:
    return {name: file[name] for name in file if hasattr(file[name], 'shape')}
  if isinstance(file, dict):
    if len(file) == 1:
      return next(iter(file.values()))
  else:
    for name in ('events', 'CD/events'):
      found = file.get(name)
      if isinstance(found, Mapping):
        return {n: found[n] for n in found if hasattr(found[n], 'shape')}
      if found is not None:
        return found
  raise RecordingError(
    f'{path}: it has {", ".join(sorted(file)) or "nothing"}, but neither '
    f'arrays {_LAYOUT} nor '
    + (
      'a single array with these fields'
      if isinstance(file, dict)
      else 'a group or dataset events with these'
    )
  )


def _checked(table, path) -> tuple[list[str], int]:
  """Names of the columns t, x, y and p in the table, and their length."""
  is_mapping = isinstance(table, Mapping)
  fields = [*table] if is_mapping else table.dtype.names or []
  names = ['t', 'x', 'y', 'p' if 'p' in fields else 'polarity']
  if not {*names} <= {*fields}:
    raise RecordingError(
      f'{path}: events have the fields {_LAYOUT}, here '
      f'{", ".join(fields) or "there are none"}'
    )
  columns = [table[name] for name in names] if is_mapping else [table]
  shapes = {column.shape for column in columns}
  if len(shapes) > 1 or len(next(iter(shapes))) != 1:
    raise RecordingError(
      f'{path}: {_LAYOUT} must have one axis, of one length, got '
      f'{", ".join(map(str, sorted(shapes)))}'
    )
  return names, next(iter(shapes))[0]
