"""Prepared data sets in TensorFlow Datasets' format, without TensorFlow.

Importing tensorflow_datasets is slow: import this file, `cifar_tfds`,
`prepared_images` and `events.tfds_store` only in functions that need them.
"""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds

from mlf_jax.errors import UserError

_CHUNK = 1024


def data_root(data_dir: str = '') -> pathlib.Path:
  """Returns the folder of all prepared data sets.

  Args:
    data_dir: the folder as the user gave it; empty for the folder in which
      TensorFlow Datasets looks.
  """
  root = data_dir or tfds.core.constants.get_default_data_dir()
  return pathlib.Path(root).expanduser()


def find_prepared(folder: pathlib.Path) -> pathlib.Path | None:
  """Returns the newest prepared version in a folder, None if there is none.

  A folder with its final name is complete: preparation writes to another one
  (`incomplete.*`) and renames it.
  """
  versions = {}
  for info in folder.glob('*/dataset_info.json'):
    if re.fullmatch(r'\d+\.\d+\.\d+', info.parent.name):
      versions[tuple(map(int, info.parent.name.split('.')))] = info.parent
  return versions[max(versions)] if versions else None


def download_and_prepare(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """Runs a builder, which prepares all of its data set or nothing.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: the folder cannot be written; also errors of the builder.
  """
  failure = None
  # Its progress bars overwrite each other and show temporary file names.
  tfds.disable_progress_bar()
  try:
    # The library announces a download on stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  # The writer of ArrayRecord raises RuntimeError, for instance on a full disk.
  except (OSError, RuntimeError) as error:
    failure = error
  # If another process was faster, its copy is as good.
  directory = pathlib.Path(builder.data_dir)
  if not (directory / 'dataset_info.json').exists():
    reason = failure or 'it exists but lacks dataset_info.json: delete it'
    raise UserError(
      f'{builder.data_dir} cannot be written ({_one_line(reason)}).'
    ) from failure
  return directory


@contextlib.contextmanager
def reading(directory: pathlib.Path, part: str) -> Iterator[None]:
  """Turns every error of reading a damaged folder into one `UserError`.

  The readers of the container, the protocol buffer and the PNG have no common
  error.
  """
  try:
    yield
  except Exception as error:
    raise UserError(
      f'The {part} prepared in {directory} cannot be read'
      f' ({type(error).__name__}: {_one_line(error)}): delete the folder to'
      ' have it prepared anew.'
    ) from error


def examples(
  builder: tfds.core.DatasetBuilder, split: str, **options
) -> Iterator[dict]:
  """Yields the examples of a split, decoded as `options` say."""
  formats = {f.value for f in builder.info.available_file_formats()}
  if 'array_record' in formats:
    records = _array_records(builder, split)
  elif 'tfrecord' in formats:
    records = _tfrecords(builder.info.splits[split].filepaths)
  else:
    raise ValueError(f'its format is {", ".join(formats)}')
  number, count = 0, builder.info.splits[split].num_examples
  for record in records:
    number += 1
    yield builder.info.features.deserialize_example_np(record, **options)
  if number != count:
    raise ValueError(f'{number} records where {count} should be')


def _array_records(builder, split) -> Iterator[bytes]:
  source = builder.as_data_source(
    split,
    deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
    file_format='array_record',
  )
  for start in range(0, len(source), _CHUNK):
    stop = min(start + _CHUNK, len(source))
    yield from source.__getitems__(list(range(start, stop)))


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
