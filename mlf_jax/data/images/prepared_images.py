"""Reads images that are prepared in TensorFlow Datasets' format."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mlf_jax.data import decoded, tfds_format

# Images that are stored at once.
_BATCH = 1000


def class_names(directory: pathlib.Path) -> tuple[str, ...]:
  """Names of the classes of a prepared data set.

  Raises:
    UserError: the folder is damaged or holds something else.
  """
  with tfds_format.reading(directory, 'data set'):
    builder = tfds.builder_from_directory(directory)
    return tuple(builder.info.features['label'].names)


def read_split(directory: pathlib.Path, split: str) -> decoded.Samples:
  """Opens one split of a prepared data set, decoded at first use.

  Args:
    directory: such as `~/tensorflow_datasets/cifar10/3.0.2`, written here or by
      the library's own builder, in ArrayRecord or TFRecord, with the features
      `image` and `label`.
    split: 'train' or 'test'.

  Returns:
    Images uint8 [n, height, width, channel] and labels int32 [n]; in the order
    of their `id` if they have one (of CIFAR the archive's order), otherwise as
    they are stored.

  Raises:
    UserError: the folder is damaged or holds something else.
  """

  def decode(start):
    with tfds_format.reading(directory, f'{split} split'):
      images, labels = _decode_images(directory, split)
    starts = range(start, len(labels), _BATCH)
    parts = (slice(begin, begin + _BATCH) for begin in starts)
    return images.shape, (decoded.Samples(images[p], labels[p]) for p in parts)

  with tfds_format.reading(directory, 'data set'):
    key = decoded.files_key(directory)
  return decoded.decode_once(directory / 'decoded', split, key, decode)


def _decode_images(directory, split) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the images and labels of a split, in their order."""
  builder = tfds.builder_from_directory(directory)
  count = builder.info.splits[split].num_examples
  shape = builder.info.features['image'].shape
  images = np.empty((count, *shape), np.uint8)
  labels = np.empty(count, np.int32)
  ids = np.empty(count, object)
  # Decoded below by Pillow: the library would use OpenCV if it is installed.
  decoders = {'image': tfds.decode.SkipDecoding()}
  for i, example in enumerate(
    tfds_format.examples(builder, split, decoders=decoders)
  ):
    with Image.open(io.BytesIO(example['image'])) as image:
      images[i] = np.reshape(image, shape)
    labels[i] = example['label']
    ids[i] = example.get('id', i)
  order = np.argsort(ids, kind='stable')
  return images[order], labels[order]
