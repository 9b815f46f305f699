"""MNIST and Fashion-MNIST: read from the four published files.

They are small enough to be read at every start. A data set that TensorFlow
Datasets has prepared is read instead, if there is one.

Sources: Y. LeCun et al., "Gradient-based learning applied to document
recognition", 1998; H. Xiao et al., "Fashion-MNIST", arXiv 1708.07747, 2017.
"""

import dataclasses
import gzip
import math
import pathlib
import zlib

import numpy as np

from mlf_jax.data import downloads, io
from mlf_jax.data.dataset import Dataset, LoadOptions, Split
from mlf_jax.errors import UserError

# A file in the IDX format begins with two zero bytes, the type of its values (8
# is uint8), the number of its axes, and their lengths, big-endian.
_UINT8 = 8
_SIDE = 28


@dataclasses.dataclass(frozen=True)
class Published:
  """Published facts about a data set.

  Attributes:
    url: folder in which the files are published.
    files: size in bytes and SHA-256 of each file, by its name without '.gz'.
    class_names: names of the classes.
    mean: mean of the training images in [0, 1], as in general use.
    std: standard deviation of the same.
  """

  url: str
  files: dict[str, tuple[int, str]]
  class_names: tuple[str, ...]
  mean: float
  std: float


_FILES = {
  'train': ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
  'test': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
}
# Sizes and sums as in TensorFlow Datasets (url_checksums/*mnist.txt).
# fmt: off
PUBLISHED = {
  'mnist': Published(
    url='https://storage.googleapis.com/cvdf-datasets/mnist/',
    files={
      'train-images-idx3-ubyte': (9_912_422,
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'),
      'train-labels-idx1-ubyte': (28_881,
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c'),
      't10k-images-idx3-ubyte': (1_648_877,
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'),
      't10k-labels-idx1-ubyte': (4_542,
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6'),
    },
    class_names=tuple('0123456789'),
    mean=0.1307,
    std=0.3081,
  ),
  'fashion_mnist': Published(
    url='http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
    files={
      'train-images-idx3-ubyte': (26_421_880,
        '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84'),
      'train-labels-idx1-ubyte': (29_515,
        'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845'),
      't10k-images-idx3-ubyte': (4_422_102,
        '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073'),
      't10k-labels-idx1-ubyte': (5_148,
        '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5'),
    },
    class_names=('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
                 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'),
    mean=0.2860,
    std=0.3530,
  ),
}
# fmt: on


def load(name: str, options: LoadOptions) -> Dataset:
  """Loads a data set.

  Args:
    name: 'mnist' or 'fashion_mnist'.
    options: the folder of prepared data sets, where downloads go too, and that
      of the four files, compressed or not.

  Returns:
    Images uint8 [n, 28, 28, 1], labels int32 [n], in the files' order.

  Raises:
    UserError: a file cannot be had or read.
  """
  # It imports tensorflow_datasets, which is slow.
  from mlf_jax.data import tfds_format

  published, root = PUBLISHED[name], tfds_format.data_root(options.data_dir)
  directory = tfds_format.find_prepared(root / name)
  if directory is not None:
    from mlf_jax.data.images import prepared_images

    parts = {
      part: Split(*prepared_images.read_split(directory, part))
      for part in _FILES
    }
  else:
    places = _locate(name, root, options.manual_dir)
    parts = {part: _read(*(places[f] for f in _FILES[part])) for part in _FILES}
  return Dataset(
    name=name,
    split_name='official',
    num_classes=10,
    **parts,
    scale=255,
    mean=(published.mean,),
    std=(published.std,),
    class_names=published.class_names,
  )


def _locate(
  name: str, root: pathlib.Path, manual_dir: str
) -> dict[str, pathlib.Path]:
  """Paths of the four files, downloaded unless a folder is named."""
  published, places = PUBLISHED[name], {}
  # The files of both data sets have the same names.
  folder = pathlib.Path(manual_dir).expanduser()
  if not manual_dir:
    folder = root / 'downloads' / name
    io.require_writable(folder)
  for file, (size, sha256) in published.files.items():
    if not manual_dir:
      url = f'{published.url}{file}.gz'
      places[file] = downloads.download(url, folder, size, sha256)
      continue
    paths = [folder / f'{file}.gz', folder / file]
    places[file] = next((path for path in paths if path.is_file()), None)
    if places[file] is None:
      raise UserError(
        f'{file}.gz is not in {manual_dir}: put the four files of {name} '
        f'there, from {published.url}'
      )
  return places


def _read(images_path: pathlib.Path, labels_path: pathlib.Path) -> Split:
  """Reads the images and labels of a split.

  Raises:
    UserError: a file is damaged, or the two do not belong together.
  """
  images = read_idx(images_path)
  if images.ndim != 3 or images.shape[1:] != (_SIDE, _SIDE) or not len(images):
    raise UserError(
      f'{images_path} holds values of shape {images.shape}, not images of '
      f'{_SIDE} x {_SIDE}'
    )
  labels = read_idx(labels_path)
  if labels.shape != images.shape[:1]:
    raise UserError(
      f'{labels_path} holds values of shape {labels.shape}, not one label for '
      f'each of the {len(images)} images in {images_path.name}'
    )
  if labels.max() > 9:
    raise UserError(
      f'{labels_path} holds the label {labels.max()}, but there are 10 classes'
    )
  return Split(images[..., np.newaxis], labels.astype(np.int32))


def read_idx(path: pathlib.Path) -> np.ndarray:
  """Reads a file of uint8 values in the IDX format.

  Args:
    path: the file, which may be compressed by gzip.

  Returns:
    Values uint8, in the shape that the file announces.

  Raises:
    UserError: the file cannot be read, is cut short or holds something else.
  """
  try:
    content = path.read_bytes()
    if content[:2] == b'\x1f\x8b':
      content = gzip.decompress(content)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UserError(f'{path} is damaged ({error})') from error
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror})') from error
  if content[:3] != bytes((0, 0, _UINT8)) or len(content) < 4:
    raise UserError(f'{path} is not a file of bytes in the IDX format')
  start = 4 + 4 * content[3]
  shape = tuple(
    int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)
  )
  if len(content) != start + math.prod(shape):
    raise UserError(
      f'{path} announces values of shape {shape}, but holds '
      f'{max(0, len(content) - start)} bytes of them'
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
