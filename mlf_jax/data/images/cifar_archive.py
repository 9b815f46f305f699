"""The published archives of CIFAR-10 and CIFAR-100, read without extraction."""

import dataclasses
import pathlib

import numpy as np

from mlf_jax.data import archives
from mlf_jax.errors import UserError

_PIXEL_BYTES = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Archive:
  """Published facts about an archive.

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

  @property
  def filename(self) -> str:
    """File name under which the archive is published."""
    return self.url.rsplit('/', 1)[-1]


# Sizes and sums as in TensorFlow Datasets (url_checksums/cifar10*.txt).
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
  ),
}


def read_records(
  archive: Archive, path: pathlib.Path
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
  """Reads the records and the names of the classes from an archive.

  A record is one byte per label, then 3,072 bytes of pixels: the red plane, the
  green, the blue, each in row-major order.

  Args:
    archive: the archive that the file is said to be.
    path: the .tar.gz file, with any number of records.

  Returns:
    The records of each split, uint8 [n, label + 3072], and the class names of
    each label.

  Raises:
    UserError: the file is damaged, or is not this archive.
  """
  files = [
    *(file for files in archive.split_files.values() for file in files),
    *archive.label_files.values(),
  ]
  names = [f'{archive.folder}/{file}' for file in files]
  members = archives.read_tar(path, names, archive.url)
  content = {file: members[f'{archive.folder}/{file}'] for file in files}
  splits = {
    split: np.concatenate(
      [_parse_records(archive, path, file, content[file]) for file in files]
    )
    for split, files in archive.split_files.items()
  }
  class_names = {}
  for key, file in archive.label_files.items():
    lines = content[file].decode('utf-8', 'replace').splitlines()
    class_names[key] = [line.strip() for line in lines if line.strip()]
    if len(class_names[key]) != archive.num_classes[key]:
      raise UserError(
        f'{path}: {file} names {len(class_names[key])} classes, not'
        f' {archive.num_classes[key]}.'
      )
  return splits, class_names


def _parse_records(
  archive: Archive, path: pathlib.Path, file: str, content: bytes
) -> np.ndarray:
  """Divides the content of a record file and checks its labels."""
  length = len(archive.num_classes) + _PIXEL_BYTES
  if not content or len(content) % length:
    raise UserError(
      f'{path}: {file} has {len(content)} bytes, not a multiple of the'
      f' {length} bytes of a record.'
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, length)
  for i, (key, number) in enumerate(archive.num_classes.items()):
    if (largest := records[:, i].max()) >= number:
      raise UserError(
        f'{path}: {file} holds the {key} {largest}, but there are {number}'
        ' classes.'
      )
  return records
