"""CIFAR-10 and CIFAR-100: prepared once, then read from disk.

The published archive is stored in the format of TensorFlow Datasets.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
2009.
"""

import pathlib
import shutil
import warnings

from mlf_jax.data import archives, downloads, io
from mlf_jax.data.dataset import Dataset, LoadOptions, Split
from mlf_jax.data.images.cifar_archive import ARCHIVES, Archive, read_records
from mlf_jax.errors import UserError


def load(name: str, options: LoadOptions) -> Dataset:
  """Loads a data set, preparing it first if it is not prepared.

  Args:
    name: 'cifar10' or 'cifar100'.
    options: the folder of prepared data sets, and that of the archive.

  Returns:
    Images uint8 [n, 32, 32, 3], labels int32 [n] (the fine labels of
    CIFAR-100), in the archive's order.

  Raises:
    UserError: the archive cannot be had or read, or a folder not be written.
  """
  # These import tensorflow_datasets, which is slow.
  from mlf_jax.data import tfds_format
  from mlf_jax.data.images import prepared_images

  archive = ARCHIVES[name]
  root = tfds_format.data_root(options.data_dir)
  directory = tfds_format.find_prepared(root / name)
  if directory is None:
    directory = _prepare(archive, root, options.manual_dir)
  return Dataset(
    name=name,
    split_name='official',
    num_classes=archive.num_classes['label'],
    train=Split(*prepared_images.read_split(directory, 'train')),
    test=Split(*prepared_images.read_split(directory, 'test')),
    scale=255,
    mean=archive.mean,
    std=archive.std,
    class_names=prepared_images.class_names(directory),
  )


def _prepare(
  archive: Archive, root: pathlib.Path, manual_dir: str
) -> pathlib.Path:
  """Prepares a data set, or waits for another process that does."""
  from mlf_jax.data import tfds_format
  from mlf_jax.data.images import cifar_tfds

  work = root / archive.name / archives.PREPARING
  # The library's own preparation is safe without locks, but done twice.
  with io.exclusive(
    work, 'the folder', *io.PREPARES, wait=True, needs_locks=False
  ):
    try:
      directory = tfds_format.find_prepared(root / archive.name)
      if directory is None:
        path = _locate_archive(archive, root, manual_dir)
        records, class_names = read_records(archive, path)
        directory = tfds_format.download_and_prepare(
          cifar_tfds.CifarBuilder(archive, records, class_names, root)
        )
      return directory
    finally:
      shutil.rmtree(work, ignore_errors=True)


def _locate_archive(
  archive: Archive, root: pathlib.Path, manual_dir: str
) -> pathlib.Path:
  """Returns the path of the archive, downloading it unless a place is named."""
  if not manual_dir:
    folder = root / 'downloads'
    io.require_writable(folder)
    return downloads.download(archive.url, folder, archive.size, archive.sha256)
  place = pathlib.Path(manual_dir).expanduser()
  both = (archive, archive.pickled)
  paths = [place, *(place / form.filename for form in both)]
  path = next((path for path in paths if path.is_file()), None)
  if path is None:
    raise UserError(
      f'{archive.filename} is not in {manual_dir}, nor is '
      f'{archive.pickled.filename}: put one of them there, from {archive.url} '
      f'({archive.size / 1e6:.0f} MB) or {archive.pickled.url} '
      f'({archive.pickled.size / 1e6:.0f} MB).'
    )
  found = downloads.checksum(path)
  if found not in {form.sha256 for form in both}:
    named = [form for form in both if form.filename == path.name] or both
    published = ' or '.join(form.sha256 for form in named)
    # Only a warning: the user may have chosen a part of the data set.
    warnings.warn(
      f'{path} has SHA-256 {found}, but {published} is published.',
      stacklevel=2,
    )
  return path
