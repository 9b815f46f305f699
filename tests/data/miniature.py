"""Archives in the published layouts of CIFAR, with random content."""

import io
import pathlib
import tarfile

import numpy as np

from mlf_jax.data.images.cifar import ARCHIVES


def write_cifar_archive(
  path: pathlib.Path, per_file: int, seed: int, name: str = 'cifar10'
) -> list[np.ndarray]:
  """Writes an archive of CIFAR with `per_file` records in each file.

  Returns:
    Training images, training labels, test images and test labels: uint8
    [n, 32, 32, 3] and int32 [n], the last label of each record.
  """
  random = np.random.default_rng(seed)
  archive, members, written = ARCHIVES[name], {}, []
  for label, file in archive.label_files.items():
    lines = [f'{label} {i}\n' for i in range(archive.num_classes[label])]
    members[file] = ''.join([*lines, '\n']).encode()
  for files in archive.split_files.values():
    images = random.integers(
      0, 256, (len(files), per_file, 32, 32, 3), np.uint8
    )
    labels = np.stack(
      [
        random.integers(0, number, images.shape[:2], np.uint8)
        for number in archive.num_classes.values()
      ],
      -1,
    )
    for file, *records in zip(files, images, labels, strict=True):
      members[file] = b''.join(
        label.tobytes() + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(*records, strict=True)
      )
    written += [
      images.reshape(-1, 32, 32, 3),
      labels[..., -1].reshape(-1).astype(np.int32),
    ]
  write_tar(path, {f'{archive.folder}/{n}': c for n, c in members.items()})
  return written


def write_tar(path: pathlib.Path, files: dict[str, bytes], *extra) -> None:
  """Writes a .tar.gz archive of files, and of members without content."""
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
    for member in extra:
      archive.addfile(member)


def read_tar(path: pathlib.Path) -> dict[str, bytes]:
  """Contents of a .tar.gz archive by name."""
  with tarfile.open(path) as archive:
    return {m.name: archive.extractfile(m).read() for m in archive}
