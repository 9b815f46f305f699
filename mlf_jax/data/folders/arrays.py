"""Arrays in one `.npz` file, mapped into memory."""

import io as io_lib
import pathlib
import shutil
import warnings
import zipfile

import numpy as np

from mlf_jax.data import io
from mlf_jax.errors import UserError

_NAMES = ('x_train', 'y_train', 'x_test', 'y_test')


def find_arrays(root: pathlib.Path) -> pathlib.Path | None:
  """The `.npz` file that a path names or that lies alone in the folder.

  Raises:
    UserError: there are several, and no folders of classes.
  """
  if root.suffix == '.npz' and root.is_file():
    return root
  if (root / 'train').is_dir():
    return None
  files = sorted(root.glob('*.npz'))
  if len(files) > 1:
    raise UserError(
      f'{root} holds {len(files)} .npz files: name one of them, such as '
      f'--config.data.dir={files[0]}'
    )
  return files[0] if files else None


def open_arrays(
  path: pathlib.Path, folder: pathlib.Path
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
  """Opens `x_train`, `y_train` and, if they are there, `x_test`, `y_test`.

  NumPy cannot map an array inside of a `.npz` file: the images are copied to
  files of their own first.

  Args:
    path: the file.
    folder: where the copies go.

  Returns:
    Images and labels of 'train' and 'test', and a key that changes with the
    file.

  Raises:
    UserError: it is damaged, lacks an array, or holds one of Python objects.
  """
  status = path.stat()
  key = f'{status.st_size:x}-{status.st_mtime_ns:x}'
  try:
    with zipfile.ZipFile(path) as archive:
      there = {pathlib.PurePath(n).stem: n for n in archive.namelist()}
      wanted = _NAMES if 'x_test' in there or 'y_test' in there else _NAMES[:2]
      missing = [name for name in wanted if name not in there]
      if missing:
        raise UserError(
          f'{path} has no array {missing[0]}, but {", ".join(there)}; it needs '
          'x_train and y_train, and may have x_test and y_test'
        )
      parts = {}
      for x, y in zip(wanted[::2], wanted[1::2], strict=True):
        images = _mapped(archive, there[x], folder, f'{path.stem}-{x}', key)
        labels = np.load(
          io_lib.BytesIO(archive.read(there[y])), allow_pickle=False
        )
        parts[x.removeprefix('x_')] = images, labels
      return parts, key
  except UserError:
    raise
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'{path} cannot be read ({reason})') from error


def _mapped(archive, member, folder, name, key) -> np.ndarray:
  """Maps an array of an archive, copied to a file of its own first."""
  place = folder / f'{name}-{key}.npy'

  def copy(part):
    # Reading to the end verifies the checksum.
    with archive.open(member) as source, part.open('wb') as file:
      shutil.copyfileobj(source, file, 1 << 20)

  if not place.exists():
    try:
      folder.mkdir(parents=True, exist_ok=True)
      io.write_atomically(place, copy)
      for stale in folder.glob(f'{name}-*.npy'):
        if stale != place:
          stale.unlink(missing_ok=True)
    except OSError as error:
      warnings.warn(
        f'cannot write to the folder {folder}: {error.strerror or error}; the '
        'arrays are kept in memory',
        stacklevel=2,
      )
      content = io_lib.BytesIO(archive.read(member))
      return np.load(content, allow_pickle=False)
  return np.load(place, mmap_mode='r', allow_pickle=False)
