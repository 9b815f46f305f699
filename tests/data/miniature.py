"""Archives in the published layouts of CIFAR, with random content."""

import io
import pathlib
import pickle
import struct
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


class _Python2(pickle._Pickler):
  """Writes what Python 2 and NumPy 1 wrote, as the published archives are."""

  dispatch = pickle._Pickler.dispatch.copy()

  def save_bytes(self, content):
    self.write(pickle.BINSTRING + struct.pack('<i', len(content)) + content)
    self.memoize(content)

  dispatch[bytes] = save_bytes
  dispatch[str] = lambda self, text: self.save_bytes(text.encode())


def python2_pickle(value) -> bytes:
  """The pickle that Python 2 makes of a value."""
  file = io.BytesIO()
  _Python2(file, 2).dump(value)
  return file.getvalue().replace(b'numpy._core', b'numpy.core')


def pickled_cifar(
  path: pathlib.Path, name: str, dump=python2_pickle
) -> dict[str, bytes]:
  """Files of the archive for Python with the content of the one of bytes."""
  archive, members = ARCHIVES[name], read_tar(path)
  pickled, labels = archive.pickled, list(archive.num_classes)
  contents = {}
  for split, files in archive.split_files.items():
    twins = pickled.split_files[split]
    for file, twin in zip(files, twins, strict=True):
      records = np.frombuffer(members[f'{archive.folder}/{file}'], np.uint8)
      records = records.reshape(-1, len(labels) + 3072)
      contents[twin] = {'batch_label': twin, 'data': records[:, len(labels) :]}
      for i, label in enumerate(labels):
        contents[twin][pickled.label_keys[label]] = records[:, i].tolist()
  contents[pickled.meta_file] = {
    pickled.name_keys[label]: members[f'{archive.folder}/{file}']
    .decode()
    .split('\n')[: archive.num_classes[label]]
    for label, file in archive.label_files.items()
  }
  return {
    f'{pickled.folder}/{file}': dump(
      {k: np.ascontiguousarray(v) if k == 'data' else v for k, v in d.items()}
    )
    for file, d in contents.items()
  }


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
