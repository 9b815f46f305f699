"""CIFAR as TensorFlow Datasets stores it, written and read without TensorFlow.

The library's own builders need TensorFlow to extract the archive and to encode
PNG. The one here writes what they write (name, version, features, splits, order
of the records) in ArrayRecord. Importing tensorflow_datasets takes seconds:
import this file, and `tfds_events`, where it is needed.
"""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mlf_jax.data.cifar_archive import Archive, Records
from mlf_jax.errors import UserError

_IMAGE_SHAPE = (32, 32, 3)
_CHUNK = 1024


class _CifarBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Stores the records of either archive under that archive's name."""

  VERSION = tfds.core.Version('3.0.2')

  def __init__(
    self,
    archive: Archive,
    splits: dict[str, Records],
    class_names: dict[str, list[str]],
    data_dir: pathlib.Path,
  ):
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
      description=f'Written from {self._archive.filename}.',
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
    del dl_manager  # The archive is read already.
    return {
      split: self._generate_examples(split, records)
      for split, records in self._splits.items()
    }

  def _generate_examples(self, split: str, records: Records) -> Iterator:
    for i, image in enumerate(records.images):
      png = io.BytesIO()
      Image.fromarray(image).save(png, 'PNG')
      labels = {key: int(values[i]) for key, values in records.labels.items()}
      yield i, {'id': f'{split}_{i:05d}', 'image': png.getvalue(), **labels}


def default_data_dir() -> pathlib.Path:
  """Returns the folder in which the library looks for prepared data sets."""
  return pathlib.Path(tfds.core.constants.get_default_data_dir()).expanduser()


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of the newest prepared version, None if there is none.

  A folder is complete once it has its name: preparation writes elsewhere
  (`incomplete.*`) and renames.
  """
  versions = {}
  for info in (data_dir / name).glob('*/dataset_info.json'):
    if re.fullmatch(r'\d+\.\d+\.\d+', info.parent.name):
      versions[tuple(map(int, info.parent.name.split('.')))] = info.parent
  return versions[max(versions)] if versions else None


def prepare_cifar(
  archive: Archive,
  splits: dict[str, Records],
  class_names: dict[str, list[str]],
  data_dir: pathlib.Path,
) -> pathlib.Path:
  """Writes the data set to `data_dir/<name>/3.0.2`, all of it or nothing.

  Args:
    archive: which archive the records come from.
    splits: the records of each split.
    class_names: the names of the classes of each label.
    data_dir: the folder of all prepared data sets.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: the folder cannot be written.
  """
  builder = _CifarBuilder(archive, splits, class_names, data_dir)
  return prepare(builder, archive.name, data_dir)


def prepare(
  builder: tfds.core.DatasetBuilder, name: str, data_dir: pathlib.Path
) -> pathlib.Path:
  """Prepares a data set and returns its folder."""
  failure = None
  # Its bars come one on top of the other, with the names of temporary files.
  tfds.disable_progress_bar()
  try:
    # The library announces on stdout, where results belong, a download.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  # The writer of ArrayRecord raises the latter, when the disk is full say.
  except (OSError, RuntimeError) as error:
    failure = error
  # Another process that was faster is no failure: its copy is as good.
  directory = find_prepared(name, data_dir)
  if directory is None:
    reason = failure or 'it exists but lacks dataset_info.json: delete it'
    raise UserError(
      f'{builder.data_dir} cannot be written ({_one_line(reason)}).'
    ) from failure
  return directory


def read_split(
  directory: pathlib.Path, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes one split of a prepared CIFAR data set.

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
  with reading(directory, split):
    builder = tfds.builder_from_directory(directory)
    features = builder.info.features
    count = builder.info.splits[split].num_examples
    images = np.empty((count, *_IMAGE_SHAPE), np.uint8)
    labels = np.empty(count, np.int32)
    ids = np.empty(count, object)
    read = 0
    # Pillow decodes PNG whether or not OpenCV, the library's choice, is there.
    decoders = {'image': tfds.decode.SkipDecoding()}
    for record in serialized_examples(builder, split):
      example = features.deserialize_example_np(record, decoders=decoders)
      with Image.open(io.BytesIO(example['image'])) as image:
        images[read] = image
      labels[read] = example['label']
      ids[read] = example['id']
      read += 1
    if read != count:
      raise ValueError(f'{read} records where {count} should be')
  order = np.argsort(ids, kind='stable')
  return images[order], labels[order]


@contextlib.contextmanager
def reading(directory: pathlib.Path, part: str) -> Iterator[None]:
  """Makes one error of all that reading a damaged folder may raise.

  What that is depends on where it is damaged: the readers of the container, the
  protocol buffer and the PNG have no common error.
  """
  try:
    yield
  except Exception as error:
    raise UserError(
      f'The {part} split prepared in {directory} cannot be read'
      f' ({type(error).__name__}: {_one_line(error)}): delete the folder to'
      ' have it prepared anew.'
    ) from error


def serialized_examples(
  builder: tfds.core.DatasetBuilder, split: str
) -> Iterator[bytes]:
  """Yields the tf.train.Example messages of a split as stored."""
  formats = {f.value for f in builder.info.available_file_formats()}
  if 'array_record' in formats:
    source = builder.as_data_source(
      split,
      deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
      file_format='array_record',
    )
    for start in range(0, len(source), _CHUNK):
      stop = min(start + _CHUNK, len(source))
      yield from source.__getitems__(list(range(start, stop)))
  elif 'tfrecord' in formats:
    yield from _tfrecords(builder.info.splits[split].filepaths)
  else:
    raise ValueError(f'its format is {", ".join(formats)}')


def _tfrecords(paths: Iterable[os.PathLike]) -> Iterator[bytes]:
  """Yields the records of TFRecord files.

  Each is framed as a little-endian uint64 length, 4 bytes checksum of it, the
  record, 4 bytes checksum of it. The checksums are not verified: the number of
  records is known, and a PNG brings checksums of its own.
  """
  for path in paths:
    with open(path, 'rb') as file:
      while header := file.read(12):
        length = int.from_bytes(header[:8], 'little')
        record = file.read(length)
        if len(record) < length or len(file.read(4)) < 4:
          raise ValueError(f'{path} ends in the middle of a record')
        yield record


def _one_line(reason: Exception | str) -> str:
  return ' '.join(str(reason).split())
