"""CIFAR-10 and CIFAR-100, prepared once and then read from disk."""

import contextlib
import pathlib
import tempfile
import warnings

from mlf_jax.data import cifar_archive, download
from mlf_jax.data.cifar_archive import Archive
from mlf_jax.data.dataset import Dataset
from mlf_jax.errors import UserError

# Of the training images, per channel, the values in general use.
_STATISTICS = {
  'cifar10': ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  'cifar100': ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load(name: str, split: str, data_dir: str, manual_dir: str) -> Dataset:
  """Loads one split, preparing the data set first where it is not prepared.

  Args:
    name: 'cifar10' or 'cifar100'.
    split: 'train' or 'test'.
    data_dir: the folder of prepared data sets, empty for the default one.
    manual_dir: the archive or its folder, empty to download it.

  Returns:
    images uint8 [n, 32, 32, 3], labels int32 [n] (the fine labels of
    CIFAR-100), in the archive's order.

  Raises:
    UserError: the archive cannot be had or read, or a folder not be written.

  Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny
  Images", 2009.
  """
  # It imports tensorflow_datasets, which other data sets do without.
  from mlf_jax.data import tfds_cifar, tfds_store

  archive = cifar_archive.ARCHIVES[name]
  if data_dir:
    root = pathlib.Path(data_dir).expanduser()
  else:
    root = tfds_store.default_data_dir()
  directory = tfds_store.find_prepared(name, root)
  if directory is None:
    fresh = [
      folder
      for folder in (root / name, root / 'downloads', root)
      if not folder.exists()
    ]
    try:
      _require_writable(root / name)
      path = _locate(archive, root, manual_dir)
      splits, class_names = cifar_archive.read(archive, path)
    except UserError:
      for folder in fresh:
        with contextlib.suppress(OSError):
          folder.rmdir()  # Only what this call made and left empty.
      raise
    directory = tfds_cifar.prepare_cifar(archive, splits, class_names, root)
  images, labels = tfds_cifar.read_split(directory, split)
  mean, std = _STATISTICS[name]
  return Dataset(
    name=name,
    split=split,
    split_name='official',
    images=images,
    labels=labels,
    num_classes=archive.num_classes['label'],
    scale=255,
    mean=mean,
    std=std,
  )


def _require_writable(folder: pathlib.Path) -> None:
  """Raises before a long download, not after it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(
      f'{folder} cannot be written ({error.strerror}): name another folder'
      ' with --config.data.dir=DIR.'
    ) from error


def _locate(
  archive: Archive, root: pathlib.Path, manual_dir: str
) -> pathlib.Path:
  """Returns the path of the archive, downloading it unless a place is named."""
  if not manual_dir:
    folder = root / 'downloads'
    _require_writable(folder)
    return download.fetch(archive.url, folder, archive.size, archive.sha256)
  path = pathlib.Path(manual_dir).expanduser()
  if not path.is_file():
    path = path / archive.filename
  if not path.is_file():
    raise UserError(
      f'{archive.filename} is not in {manual_dir}: put the file from'
      f' {archive.url} there.'
    )
  try:
    checksum = download.sha256(path)
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}).') from error
  if checksum != archive.sha256:
    # Only a warning: the user chose the file, a part of the data set perhaps.
    warnings.warn(
      f'{path} has SHA-256 {checksum}, but {archive.sha256} is published.',
      stacklevel=2,
    )
  return path
