"""CIFAR in TensorFlow Datasets' format, written and read without TensorFlow.

The library's own builders need TensorFlow to extract the archive and to encode
PNG. This builder writes the same data set (name, version, features, splits,
order of the records) in ArrayRecord.
"""

import io
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mlf_jax.data import decoded, tfds_format
from mlf_jax.data.images.cifar_archive import Archive

_IMAGE_SHAPE = (32, 32, 3)
# Images that are stored at once.
_BATCH = 1000


class CifarBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Builder of `<data_dir>/<name of the archive>/3.0.2`."""

  VERSION = tfds.core.Version('3.0.2')

  def __init__(
    self,
    archive: Archive,
    splits: dict[str, np.ndarray],
    class_names: dict[str, list[str]],
    data_dir: pathlib.Path,
  ):
    """Keeps the records.

    Args:
      archive: the archive that the records come from.
      splits: the records of each split, from `read_records`.
      class_names: the names of the classes of each label.
      data_dir: the folder of all prepared data sets.
    """
    self.name = archive.name
    self._archive = archive
    self._splits = splits
    self._class_names = class_names
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    labels = {
      key: tfds.features.ClassLabel(names=names)
      for key, names in self._class_names.items()
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'Written from the published archive of {self.name}.',
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(shape=_IMAGE_SHAPE),
          **labels,
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # The archive has been read already.
    return {
      split: self._generate_examples(split, records)
      for split, records in self._splits.items()
    }

  def _generate_examples(self, split: str, records: np.ndarray) -> Iterator:
    count = len(self._class_names)
    planes = records[:, count:].reshape(-1, *_IMAGE_SHAPE[::-1])
    for i, image in enumerate(planes.transpose(0, 2, 3, 1)):
      png = io.BytesIO()
      Image.fromarray(image).save(png, 'PNG')
      labels = dict(zip(self._class_names, records[i], strict=False))
      yield i, {'id': f'{split}_{i:05d}', 'image': png.getvalue(), **labels}


def read_split(directory: pathlib.Path, split: str) -> decoded.Samples:
  """Opens one split of a prepared CIFAR data set, decoded at first use.

  Args:
    directory: such as `~/tensorflow_datasets/cifar10/3.0.2`, written here or by
      the library's own builder, in ArrayRecord or TFRecord.
    split: 'train' or 'test'.

  Returns:
    Images uint8 [n, 32, 32, 3] and labels int32 [n], in the archive's order
    (the stored one is shuffled).

  Raises:
    UserError: the folder is damaged or holds something else.
  """

  def decode():
    with tfds_format.reading(directory, f'{split} split'):
      images, labels = _decode_images(directory, split)
    starts = range(0, len(labels), _BATCH)
    parts = (slice(start, start + _BATCH) for start in starts)
    return images.shape, (decoded.Samples(images[p], labels[p]) for p in parts)

  with tfds_format.reading(directory, 'data set'):
    key = decoded.files_key(directory)
  return decoded.decode_once(directory / 'decoded', split, key, decode)


def _decode_images(directory, split) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the images and labels of a split, in the archive's order."""
  builder = tfds.builder_from_directory(directory)
  count = builder.info.splits[split].num_examples
  images = np.empty((count, *_IMAGE_SHAPE), np.uint8)
  labels = np.empty(count, np.int32)
  ids = np.empty(count, object)
  # Decoded below by Pillow: the library would use OpenCV if it is installed.
  decoders = {'image': tfds.decode.SkipDecoding()}
  for i, example in enumerate(
    tfds_format.examples(builder, split, decoders=decoders)
  ):
    with Image.open(io.BytesIO(example['image'])) as image:
      images[i] = image
    labels[i] = example['label']
    ids[i] = example['id']
  order = np.argsort(ids, kind='stable')
  return images[order], labels[order]
