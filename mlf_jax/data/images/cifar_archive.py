"""The published archives of CIFAR-10 and CIFAR-100, read without extraction.

Each is published twice with the same images in the same order: as plain bytes,
and as pickled arrays for Python.
"""

import dataclasses
import pathlib

import numpy as np

from mlf_jax.data import archives
from mlf_jax.data.images.cifar_pickles import unpickle
from mlf_jax.errors import UserError

_PIXEL_BYTES = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Pickled:
  """Published facts about the archive for Python.

  Attributes:
    url: where it is published.
    size: in bytes.
    sha256: SHA-256 of the file, hexadecimal digits.
    folder: folder inside the archive in which all members lie.
    split_files: for each split the pickled dictionaries, in order.
    label_keys: for each label the key of the list of labels.
    meta_file: the pickled dictionary with the names of the classes.
    name_keys: for each label the key of the list of names.
  """

  url: str
  size: int
  sha256: str
  folder: str
  split_files: dict[str, tuple[str, ...]]
  label_keys: dict[str, str]
  meta_file: str
  name_keys: dict[str, str]

  @property
  def filename(self) -> str:
    """File name under which the archive is published."""
    return self.url.rsplit('/', 1)[-1]


@dataclasses.dataclass(frozen=True)
class Archive:
  """Published facts about an archive of plain bytes, and about its twin.

  Attributes:
    name: name of the data set.
    url: where it is published.
    size: in bytes.
    sha256: SHA-256 of the file, hexadecimal digits.
    folder: folder inside the archive in which all members lie.
    split_files: for each split the record files, in order.
    label_files: for each label, in the order in which the label bytes open a
      record, the text file with the names of its classes, one per line.
    num_classes: the same for the number of classes.
    mean: mean per channel of the training images in [0, 1], as in general use.
    std: standard deviation per channel of the same.
    pickled: the archive of the same images for Python.
  """

  name: str
  url: str
  size: int
  sha256: str
  folder: str
  split_files: dict[str, tuple[str, ...]]
  label_files: dict[str, str]
  num_classes: dict[str, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  pickled: Pickled

  @property
  def filename(self) -> str:
    """File name under which the archive is published."""
    return self.url.rsplit('/', 1)[-1]


# Sizes and sums as in TensorFlow Datasets (url_checksums/cifar10*.txt), those
# of the archives for Python as in Keras.
ARCHIVES = {
  'cifar10': Archive(
    name='cifar10',
    url='https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
    size=170_052_171,
    sha256='c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    folder='cifar-10-batches-bin',
    split_files={
      'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
      'test': ('test_batch.bin',),
    },
    label_files={'label': 'batches.meta.txt'},
    num_classes={'label': 10},
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    pickled=Pickled(
      url='https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz',
      size=170_498_071,
      sha256='6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce',
      folder='cifar-10-batches-py',
      split_files={
        'train': tuple(f'data_batch_{i}' for i in range(1, 6)),
        'test': ('test_batch',),
      },
      label_keys={'label': 'labels'},
      meta_file='batches.meta',
      name_keys={'label': 'label_names'},
    ),
  ),
  'cifar100': Archive(
    name='cifar100',
    url='https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
    size=168_513_733,
    sha256='58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
    folder='cifar-100-binary',
    split_files={'train': ('train.bin',), 'test': ('test.bin',)},
    label_files={
      'coarse_label': 'coarse_label_names.txt',
      'label': 'fine_label_names.txt',
    },
    num_classes={'coarse_label': 20, 'label': 100},
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    pickled=Pickled(
      url='https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz',
      size=169_001_437,
      sha256='85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7',
      folder='cifar-100-python',
      split_files={'train': ('train',), 'test': ('test',)},
      label_keys={'coarse_label': 'coarse_labels', 'label': 'fine_labels'},
      meta_file='meta',
      name_keys={
        'coarse_label': 'coarse_label_names',
        'label': 'fine_label_names',
      },
    ),
  ),
}


def read_records(
  archive: Archive, path: pathlib.Path
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
  """Reads the records and the names of the classes from an archive.

  A record is one byte per label, then 3,072 bytes of pixels: the red plane, the
  green, the blue, each in row-major order.

  Args:
    archive: the data set that the file is said to hold.
    path: the .tar.gz file, in either form, with any number of records.

  Returns:
    The records of each split, uint8 [n, label + 3072], and the class names of
    each label.

  Raises:
    UserError: the file is damaged, or is not this archive.
  """
  is_pickled = archives.first_folder(path) == archive.pickled.folder
  read = _read_pickled if is_pickled else _read_bytes
  files, class_names = read(archive, path)
  splits = {}
  for split, of_split in files.items():
    for file, records in of_split.items():
      for i, (key, number) in enumerate(archive.num_classes.items()):
        if (largest := records[:, i].max()) >= number:
          raise UserError(
            f'{path}: {file} holds the {key} {largest}, but there are {number}'
            ' classes.'
          )
    splits[split] = np.concatenate([*of_split.values()])
  for key, number in archive.num_classes.items():
    if len(class_names[key]) != number:
      raise UserError(
        f'{path}: the names of {len(class_names[key])} classes are there for '
        f'the {key}, not {number}.'
      )
  return splits, class_names


def _read_bytes(archive, path):
  """Records by split and file, and class names, of the archive of bytes."""
  files = [
    *(file for files in archive.split_files.values() for file in files),
    *archive.label_files.values(),
  ]
  content = archives.read_tar(path, archive.folder, files, archive.url)
  length = len(archive.num_classes) + _PIXEL_BYTES
  for split_files in archive.split_files.values():
    for file in split_files:
      if not content[file] or len(content[file]) % length:
        raise UserError(
          f'{path}: {file} has {len(content[file])} bytes, not a multiple of '
          f'the {length} bytes of a record.'
        )
  records = {
    split: {
      file: np.frombuffer(content[file], np.uint8).reshape(-1, length)
      for file in files
    }
    for split, files in archive.split_files.items()
  }
  class_names = {}
  for key, file in archive.label_files.items():
    lines = content[file].decode('utf-8', 'replace').splitlines()
    class_names[key] = [line.strip() for line in lines if line.strip()]
  return records, class_names


def _read_pickled(archive, path):
  """The same of the archive for Python."""
  pickled = archive.pickled
  files = [file for files in pickled.split_files.values() for file in files]
  content = archives.read_tar(
    path, pickled.folder, [*files, pickled.meta_file], pickled.url
  )

  def values_of(file, types):
    """Values of a pickled dictionary, which have to be of these types."""
    values = unpickle(content[file], f'{path}: {file}')
    for key, kind in types.items():
      if not isinstance(values.get(key), kind):
        raise UserError(f'{path}: {file} has no {kind.__name__} {key!r}.')
    return [values[key] for key in types]

  def records_of(file):
    label_keys = pickled.label_keys.values()
    *labels, pixels = values_of(
      file, dict.fromkeys(label_keys, list) | {'data': np.ndarray}
    )
    shape = (len(pixels), _PIXEL_BYTES)
    if pixels.shape != shape or not len(pixels):
      raise UserError(
        f'{path}: {file} has pixels of shape {pixels.shape}, not [n, '
        f'{_PIXEL_BYTES}].'
      )
    for column in labels:
      if len(column) != len(pixels) or not all(
        isinstance(label, int) and 0 <= label < 256 for label in column
      ):
        raise UserError(
          f'{path}: {file} does not have one label for each of its '
          f'{len(pixels)} images.'
        )
    columns = [np.array(column, np.uint8)[:, np.newaxis] for column in labels]
    return np.concatenate([*columns, pixels], axis=1)

  records = {
    split: {file: records_of(file) for file in files}
    for split, files in pickled.split_files.items()
  }
  names = values_of(
    pickled.meta_file, dict.fromkeys(pickled.name_keys.values(), list)
  )
  return records, {
    key: [
      n.decode('utf-8', 'replace') if isinstance(n, bytes) else str(n)
      for n in of_key
    ]
    for key, of_key in zip(pickled.name_keys, names, strict=True)
  }
