"""CIFAR in TensorFlow Datasets' format, written without TensorFlow.

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

from mlf_jax.data.images.cifar_archive import Archive

_IMAGE_SHAPE = (32, 32, 3)


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
