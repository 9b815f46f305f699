"""Archives in the published layouts of CIFAR, with random content."""

import io
import pathlib
import tarfile

import numpy as np

CIFAR10_CLASSES = (
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def write_cifar10_archive(
  path: pathlib.Path, per_file: int, seed: int
) -> Split:
  """Writes cifar-10-binary.tar.gz with `per_file` records in each file.

  Returns:
    train_images, train_labels, test_images, test_labels: uint8 [n, 32, 32, 3]
    and int32 [n].
  """
  random = np.random.default_rng(seed)
  images = random.integers(0, 256, (6, per_file, 32, 32, 3), np.uint8)
  labels = random.integers(0, 10, (6, per_file), np.uint8)
  names = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
  members = {'batches.meta.txt': '\n'.join(CIFAR10_CLASSES).encode() + b'\n\n'}
  for name, file_images, file_labels in zip(names, images, labels, strict=True):
    members[name] = records(file_images, file_labels)
  write_archive(path, 'cifar-10-batches-bin', members)
  return (
    images[:5].reshape(-1, 32, 32, 3),
    labels[:5].reshape(-1).astype(np.int32),
    images[5],
    labels[5].astype(np.int32),
  )


def write_cifar100_archive(
  path: pathlib.Path, per_file: int, seed: int
) -> Split:
  """Writes cifar-100-binary.tar.gz with `per_file` records in each file.

  Returns:
    train_images, train_labels, test_images, test_labels: uint8 [n, 32, 32, 3]
    and int32 [n], the fine labels.
  """
  random = np.random.default_rng(seed)
  images = random.integers(0, 256, (2, per_file, 32, 32, 3), np.uint8)
  coarse = random.integers(0, 20, (2, per_file), np.uint8)
  fine = random.integers(0, 100, (2, per_file), np.uint8)
  members = {
    'coarse_label_names.txt': _class_names('coarse', 20),
    'fine_label_names.txt': _class_names('fine', 100),
    'train.bin': records(images[0], coarse[0], fine[0]),
    'test.bin': records(images[1], coarse[1], fine[1]),
  }
  write_archive(path, 'cifar-100-binary', members)
  fine = fine.astype(np.int32)
  return images[0], fine[0], images[1], fine[1]


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
  """Returns the bytes of a record file: labels, red, green and blue plane."""
  content = bytearray()
  for image, *record_labels in zip(images, *labels, strict=True):
    content += bytes(record_labels)
    for channel in range(3):
      content += image[:, :, channel].tobytes()
  return bytes(content)


def write_tar(path: pathlib.Path, files: dict[str, bytes], *extra) -> None:
  """Writes a .tar.gz archive of files, and of members without content."""
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
    for member in extra:
      archive.addfile(member)


def write_archive(
  path: pathlib.Path, folder: str, members: dict[str, bytes]
) -> None:
  """Writes a .tar.gz file with these members in one folder."""
  write_tar(path, {f'{folder}/{name}': c for name, c in members.items()})


def _class_names(prefix: str, count: int) -> bytes:
  return ''.join(f'{prefix}_{i}\n' for i in range(count)).encode()
