"""A labelled data set, and how to make one of arrays."""

import dataclasses
import functools
import hashlib
import math
import typing
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real, Shaped

from mlf_jax.data.chosen_rows import ChosenRows
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.errors import UserError

if typing.TYPE_CHECKING:
  from mlf_jax.data.events.frames import FrameSpec

# Bytes of images that are looked at together: they may not fit into memory.
_PIECE_BYTES = 1 << 20
_RANKS = {
  4: '[sample, height, width, channel]',
  5: '[sample, time, height, width, channel]',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Training or test samples of a data set.

  Attributes:
    images: [n, h, w, c] for static images or [n, t, h, w, c] for frames; uint8
      unless they come from `from_arrays`. An array, a read-only `np.memmap` of
      a file or `ChosenRows` of one: index it for arrays in memory.
    labels: int32 [n], class of each sample in 0..num_classes - 1.
    ids: str [n], the name of each recording of an event data set, else None.
  """

  images: Shaped[np.ndarray, 'n *sample'] | ChosenRows
  labels: Shaped[np.ndarray, 'n']
  ids: Shaped[np.ndarray, 'n'] | None = None

  def __repr__(self) -> str:
    """Returns shape and dtype of the images."""
    return f'Split({self.images.shape} {self.images.dtype})'

  def __len__(self) -> int:
    """Returns the number of samples."""
    return len(self.labels)

  @property
  def label_hash(self) -> str:
    """First 16 hex digits of the SHA-256 of the labels, quick to compute."""
    return _hash_of_labels(self.labels).hexdigest()[:16]

  @functools.cached_property
  def split_hash(self) -> str:
    """First 16 hex digits of the SHA-256 of the labels, then of the members.

    Two runs with equal hashes saw the same samples in the same order. Images
    stand for themselves; recordings are known by their names, so that the
    hashes of two ways to make frames of them compare.
    """
    digest = _hash_of_labels(self.labels)
    if self.ids is None:
      for part in _pieces(self.images):
        digest.update(np.ascontiguousarray(part).data)
    else:
      digest.update('\n'.join(self.ids).encode())
    return digest.hexdigest()[:16]


def _hash_of_labels(labels):
  # Little-endian on every machine, so that the hash compares.
  return hashlib.sha256(np.ascontiguousarray(labels, '<i4').data)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set, divided into training and test samples.

  Attributes:
    name: name of the data set, such as 'cifar10'.
    split_name: how the split was made, 'official' if the data set's authors
      made it. Accuracies under different split names do not compare.
    num_classes: number of classes.
    train: training samples.
    test: test samples.
    scale: the value of `images` that stands for 1.0.
    mean: mean per channel of the training images divided by `scale`.
    std: standard deviation per channel of the same.
    validation: samples held out of the training set, by which the best
      checkpoint is chosen; None: the test samples choose it.
    class_names: name of each class; empty if they are not known.
  """

  name: str
  split_name: str
  num_classes: int
  train: Split
  test: Split
  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  validation: Split | None = None
  class_names: tuple[str, ...] = ()

  def __repr__(self) -> str:
    """Returns a line without the samples."""
    parts = ', '.join(f'{name}={part}' for name, part in self.splits.items())
    return (
      f'Dataset({self.name!r}, split_name={self.split_name!r}, '
      f'num_classes={self.num_classes}, {parts})'
    )

  @property
  def splits(self) -> dict[str, Split]:
    """The parts that there are: 'train', 'validation', 'test'."""
    parts = {
      name: getattr(self, name) for name in ('train', 'validation', 'test')
    }
    return {name: part for name, part in parts.items() if part is not None}

  @property
  def sample_shape(self) -> tuple[int, ...]:
    """Shape of one sample: (h, w, c), or (t, h, w, c) for frames."""
    return self.train.images.shape[1:]

  @property
  def preprocessing(self) -> Preprocessing:
    """Shape, scaling and class names of the samples, for a network."""
    return Preprocessing(
      self.sample_shape,
      self.num_classes,
      self.class_names,
      self.scale,
      self.mean,
      self.std,
      str(self.train.images.dtype),
    )

  def normalize(
    self, images: Real[Array, '*batch channel'], dtype: jnp.dtype
  ) -> Float[Array, '*batch channel']:
    """Returns `(images / scale - mean) / std`; see `Preprocessing`."""
    return self.preprocessing.normalize(images, dtype)


@dataclasses.dataclass(frozen=True)
class LoadOptions:
  """Options of `load`; each is ignored or refused by data sets without it.

  Attributes:
    frames: how recordings become frames; by default those of the data set.
    split_name: how train and test are divided if there is no official split:
      'tail', 'head', 'random' or 'random-SEED' for cifar10_dvs.
    data_dir: folder of prepared data sets; empty for the place that TensorFlow
      Datasets uses, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`. For a data set
      that is a folder, that folder.
    manual_dir: folder that holds the published archive, or the archive itself,
      or for recordings the folder it was extracted to; empty to download it,
      which only images can be. Not used if `data_dir` holds the data set.
    size: (height, width) that a folder's images are resized to; (0, 0) if all
      have one size.
    sensor: camera of a folder's recordings, a name or 'HEIGHTxWIDTH'; '' if the
      files say it.
  """

  frames: 'FrameSpec | None' = None
  split_name: str = ''
  data_dir: str = ''
  manual_dir: str = ''
  size: tuple[int, int] = (0, 0)
  sensor: str = ''


def from_arrays(
  train_images: Real[np.ndarray, 'n *sample'],
  train_labels: Real[np.ndarray, 'n'],
  test_images: Real[np.ndarray, 'm *sample'],
  test_labels: Real[np.ndarray, 'm'],
  *,
  num_classes: int | None = None,
  class_names: Sequence[str] = (),
  name: str = 'arrays',
  scale: float | None = None,
  mean: tuple[float, ...] | None = None,
  std: tuple[float, ...] | None = None,
) -> Dataset:
  """Makes a data set of one's own arrays, for `train(config, dataset)`.

      dataset = data.from_arrays(images, labels, test_images, test_labels)

  Args:
    train_images: static images [n, h, w, c] of any real dtype, or uint8 frames
      of event counts [n, t, h, w, c]. Arrays of uint8 or float32 are not
      copied and may be files that are mapped into memory,
      `np.load(path, mmap_mode='r')`.
    train_labels: whole numbers [n], the class of each sample, from 0 on.
    test_images: test samples, like `train_images`: both uint8 or neither.
    test_labels: test labels, like `train_labels`.
    num_classes: number of classes; by default the largest label plus 1, and
      a training sample must then have the label 0.
    class_names: name of each class, if you want them in results.
    name: name of the data set in results.
    scale: the value of the images that stands for 1.0; by default 255 for
      static uint8 images, otherwise 1.
    mean: mean per channel of the images divided by `scale`; by default that of
      the training images, and 0 for frames.
    std: standard deviation per channel of the same; by default that of the
      training images (1 for a constant channel), and 1 for frames.

  Returns:
    The data set. Static images that are not uint8 are kept as float32.

  Raises:
    UserError: an array has the wrong rank, shape, dtype or length, or a value
      that cannot be; the message names the argument.
  """
  splits = {}
  for part, images, labels in (
    ('train', train_images, train_labels),
    ('test', test_images, test_labels),
  ):
    images = _as_images(f'{part}_images', images)
    labels = _as_labels(f'{part}_labels', labels, len(images), num_classes)
    splits[part] = Split(images, labels)
  train, test = splits['train'].images, splits['test'].images
  if train.shape[1:] != test.shape[1:]:
    raise UserError(
      f'train_images hold samples of shape {train.shape[1:]} and test_images '
      f'of shape {test.shape[1:]}: they must agree'
    )
  if train.dtype != test.dtype:
    parts = ('train', 'test') if train.dtype == np.uint8 else ('test', 'train')
    raise UserError(
      '{}_images are uint8 and {}_images are not, so that their scales may '
      'differ: give both in the same dtype'.format(*parts)
    )
  is_said = num_classes is not None or len(class_names)
  if not is_said and splits['train'].labels.all():
    raise UserError(
      'train_labels hold no 0, but classes count from 0: subtract the '
      'smallest label from all of them, or pass num_classes'
    )
  if num_classes is None:
    num_classes = 1 + max(split.labels.max() for split in splits.values())
  if len(class_names) not in (0, num_classes):
    raise UserError(
      f'class_names are {len(class_names)}, but there are {num_classes} classes'
    )
  is_frames, channels = train.ndim == 5, train.shape[-1]
  if scale is None:
    scale = 255 if train.dtype == np.uint8 and not is_frames else 1
  if not 0 < scale < float('inf'):
    raise UserError(f'scale must be positive and finite, got {scale}')
  if mean is None or std is None:
    train_mean, train_std = (0.0,) * channels, (1.0,) * channels
    if not is_frames:
      train_mean, train_std = (v / scale for v in _statistics(train))
      train_std[train_std == 0] = 1
    mean = train_mean if mean is None else mean
    std = train_std if std is None else std
  return Dataset(
    name=name,
    split_name='given',
    num_classes=int(num_classes),
    **splits,
    scale=float(scale),
    mean=_per_channel('mean', mean, channels),
    std=_per_channel('std', std, channels),
    class_names=tuple(class_names),
  )


def _as_images(argument: str, values) -> np.ndarray:
  """Validates images or frames; returns uint8 or float32."""
  images = values if isinstance(values, ChosenRows) else np.asarray(values)
  if images.ndim not in _RANKS:
    raise UserError(
      f'{argument} must be static images {_RANKS[4]} or frames {_RANKS[5]}, '
      f'got shape {images.shape}'
    )
  if 0 in images.shape:
    raise UserError(f'{argument} are empty: their shape is {images.shape}')
  if images.dtype.kind not in 'biuf':
    raise UserError(f'{argument} must hold real numbers, not {images.dtype}')
  if images.dtype == np.uint8:
    return images
  if images.ndim == 5:
    raise UserError(
      f'{argument} are frames of event counts, which must be uint8, not '
      f'{images.dtype}'
    )
  with np.errstate(over='ignore'):
    images = np.asarray(images).astype(np.float32, copy=False)
  start = 0
  for piece in _pieces(images):
    if not (is_finite := np.isfinite(piece)).all():
      sample = start + np.argwhere(~is_finite)[0][0]
      raise UserError(
        f'{argument} must be finite numbers, but sample {sample} has '
        'NaN, infinity or a value that float32 cannot hold'
      )
    start += len(piece)
  return images


def _pieces(images) -> Iterator[np.ndarray]:
  """Yields all images, as many at once as fit into little memory."""
  bytes_each = int(np.prod(images.shape[1:])) * images.dtype.itemsize
  count = max(1, _PIECE_BYTES // max(1, bytes_each))
  for start in range(0, len(images), count):
    yield np.asarray(images[start : start + count])


def _statistics(images) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation per channel, in float64."""
  axes, count = tuple(range(images.ndim - 1)), math.prod(images.shape[:-1])
  mean = sum(p.sum(axes, np.float64) for p in _pieces(images)) / count
  squares = sum(
    ((piece - mean) ** 2).sum(axes, np.float64) for piece in _pieces(images)
  )
  return mean, np.sqrt(squares / count)


def _as_labels(argument: str, values, length: int, num_classes) -> np.ndarray:
  """Validates the labels of `length` samples; returns int32."""
  labels = np.asarray(values)
  if labels.ndim != 1:
    raise UserError(
      f'{argument} must be one class number per sample [sample], got shape '
      f'{labels.shape}; one-hot labels become numbers by argmax(-1)'
    )
  if len(labels) != length:
    images = argument.replace('labels', 'images')
    raise UserError(
      f'{argument} are {len(labels)}, but {images} are {length}: each sample '
      'needs one label'
    )
  if labels.dtype.kind not in 'iuf' or (labels != np.floor(labels)).any():
    raise UserError(
      f'{argument} must be whole numbers, the class of each sample'
    )
  classes = 2**31 if num_classes is None else num_classes
  outside = labels[(labels < 0) | (labels >= classes)]
  if outside.size:
    raise UserError(
      f'{argument} hold the class {outside[0]}, but classes count from 0 to '
      f'{classes - 1}'
      + (f', as num_classes is {num_classes}' if num_classes else '')
    )
  return labels.astype(np.int32)


def _per_channel(argument: str, values, channels: int) -> tuple[float, ...]:
  """Validates a mean or a standard deviation."""
  values = tuple(float(value) for value in np.ravel(values))
  if len(values) != channels:
    raise UserError(
      f'{argument} must have one value per channel, {channels}, got '
      f'{len(values)}'
    )
  if not np.isfinite(values).all() or (argument == 'std' and min(values) <= 0):
    range_ = 'positive and finite' if argument == 'std' else 'finite'
    raise UserError(f'{argument} must be {range_}, got {values}')
  return values
