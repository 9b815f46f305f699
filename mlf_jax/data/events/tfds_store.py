"""Builders and readers of prepared frames in TensorFlow Datasets' format.

They need no TensorFlow. Importing this file registers the builders:
`tfds.builder('dvs_gesture', manual_dir=DIR)`.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from mlf_jax.data import archives, decoded, io, tfds_format
from mlf_jax.data.events import conversion
from mlf_jax.data.events.catalogue import EVENT_SETS, EventSet
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.errors import UserError

# Samples that are stored at once.
_BATCH = 16


@dataclasses.dataclass
class FramesConfig(tfds.core.BuilderConfig):
  """A frame specification as a builder configuration."""

  frames: FrameSpec | None = None


def _frames_configs(paper: FrameSpec) -> list[FramesConfig]:
  """Returns a configuration for each binning, the paper's first as default."""
  others = [
    FrameSpec(paper.time_steps, binning, downsample=paper.downsample)
    for binning in ('span', 'count')
  ]
  return [FramesConfig(name=s.name, frames=s) for s in (paper, *others)]


class _EventBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
  """Builder that converts recordings to frames, once and resumably.

  `conversion.convert` describes a sample. The library's own generator-based
  builders would write every sample a second time; here the workers' files are
  the shards of the data set. The summary of the conversion is the metadata.
  """

  EVENT_SET: ClassVar[EventSet]

  def __init__(
    self,
    *,
    manual_dir: str = '',
    backwards: str = 'error',
    processes: int | None = None,
    **kwargs,
  ):
    """Keeps the options of `conversion.convert`.

    Args:
      manual_dir: the recordings; empty for the folder that the library's
        download configuration names.
      backwards: what to do with recordings whose time goes back.
      processes: number of processes.
      **kwargs: arguments of the library; its file format is ArrayRecord.
    """
    self._manual_dir = manual_dir
    self._backwards = backwards
    self._processes = processes
    if kwargs.setdefault('file_format', 'array_record') != 'array_record':
      raise UserError(
        f'frames are stored as array_record, not as {kwargs["file_format"]}'
      )
    super().__init__(**kwargs)
    self._work = pathlib.Path(self.data_dir).parent / archives.PREPARING

  def _info(self) -> tfds.core.DatasetInfo:
    event_set = self.EVENT_SET
    shape = self.builder_config.frames.shape(event_set.sensor_size)
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'Frames of {event_set.name}. {event_set.source}',
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'frames': tfds.features.Tensor(
            shape=shape, dtype=np.uint8, encoding='zlib'
          ),
          'label': tfds.features.ClassLabel(names=event_set.classes),
          'events': tfds.features.Scalar(np.int64),
          'padded_share': tfds.features.Scalar(np.float32),
        }
      ),
      supervised_keys=('frames', 'label'),
      # Named splits depend on the order of the recordings.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def download_and_prepare(self, **kwargs) -> None:
    """Prepares the data set, or waits for another process that does.

    Raises:
      UserError: no recordings, or the folder cannot be written.
    """
    config = kwargs.get('download_config')
    overwrites = config is not None and config.download_mode.overwrite_dataset
    if self.data_path.exists() and not overwrites:
      return  # Even if nothing can be written there.
    with io.exclusive(self._work, 'the folder', *io.PREPARES, wait=True):
      for left_behind in self._work.parent.glob('incomplete.*'):
        shutil.rmtree(left_behind)
      # The library makes this folder though nothing is downloaded.
      kwargs.setdefault('download_dir', self._work / 'downloads')
      try:
        super().download_and_prepare(**kwargs)
        shutil.rmtree(self._work)
      except UserError:
        left = {path.name for path in self._work.iterdir()}
        if left <= {'.lock', 'downloads'}:  # Nothing to continue from.
          shutil.rmtree(self._work)
        raise

  def _download_and_prepare(self, dl_manager, download_config=None) -> None:
    """Converts the recordings and places the shards in the data set's folder.

    The library calls this while `data_dir` is a temporary folder, to which it
    adds `dataset_info.json` before it gives the folder its name.
    """
    del download_config
    shards, summary = conversion.convert(
      self.EVENT_SET,
      self._manual_dir or str(dl_manager.manual_dir),
      self.builder_config.frames,
      self._work,
      self.info.features.serialize_example,
      self._backwards,
      self._processes,
    )
    self.info.metadata.update(summary)
    splits = []
    for split, of_split in shards.items():
      template = self._get_filename_template(split)
      paths = template.sharded_filepaths(len(of_split))
      for (shard, _), path in zip(of_split, paths, strict=True):
        try:
          # A second name, so that the unit is still done after a kill here.
          os.link(shard, path)
        except OSError:  # A file system without hard links.
          shard.replace(path)
      splits.append(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[len(report.labels) for _, report in of_split],
          num_bytes=sum(report.record_bytes for _, report in of_split),
          filename_template=template,
        )
      )
    self.info.set_splits(tfds.core.splits.SplitDict(splits))


class DvsGesture(_EventBuilder):
  """DVS-Gesture; see `catalogue`."""

  EVENT_SET = EVENT_SETS['dvs_gesture']
  VERSION = tfds.core.Version(EVENT_SET.version)
  BUILDER_CONFIGS = _frames_configs(EVENT_SET.frames)
  MANUAL_DOWNLOAD_INSTRUCTIONS = EVENT_SET.source


class Cifar10Dvs(_EventBuilder):
  """CIFAR10-DVS, all in split 'train', since it has no official splits."""

  EVENT_SET = EVENT_SETS['cifar10_dvs']
  VERSION = tfds.core.Version(EVENT_SET.version)
  BUILDER_CONFIGS = _frames_configs(EVENT_SET.frames)
  MANUAL_DOWNLOAD_INSTRUCTIONS = EVENT_SET.source


class NMnist(_EventBuilder):
  """N-MNIST; see `catalogue`."""

  EVENT_SET = EVENT_SETS['n_mnist']
  VERSION = tfds.core.Version(EVENT_SET.version)
  BUILDER_CONFIGS = _frames_configs(EVENT_SET.frames)
  MANUAL_DOWNLOAD_INSTRUCTIONS = EVENT_SET.source


_EVENT_BUILDERS = {
  builder.EVENT_SET.name: builder
  for builder in (DvsGesture, Cifar10Dvs, NMnist)
}


def prepare_frames(
  name: str,
  frames: FrameSpec,
  data_dir: pathlib.Path,
  manual_dir: str,
  backwards: str = 'error',
  processes: int | None = None,
) -> pathlib.Path:
  """Converts recordings and writes `data_dir/<name>/<frames>/<version>`.

  All of it is written or nothing; units that were converted before a failure
  are kept for the next call.

  Args:
    name: one of `EVENT_SETS`.
    frames: how to make frames.
    data_dir: the folder of all prepared data sets.
    manual_dir: see `recordings.find_recordings`.
    backwards: see `formats.read_aedat`.
    processes: number of processes; None is one per CPU core.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: no recordings, or the folder cannot be written.
  """
  make = _EVENT_BUILDERS[name]
  if frames.name not in make.builder_configs:
    # The library warns about configurations that are not of the class.
    config = FramesConfig(name=frames.name, frames=frames)

    class WithConfig(make, skip_registration=True):
      name = make.name
      BUILDER_CONFIGS = [*make.BUILDER_CONFIGS, config]  # noqa: RUF012

    make = WithConfig
  builder = make(
    config=frames.name,
    data_dir=data_dir,
    manual_dir=manual_dir,
    backwards=backwards,
    processes=processes,
  )
  return tfds_format.download_and_prepare(builder)


def read_summary(directory: pathlib.Path) -> dict:
  """Reads the summary of the conversion that made the frames.

  Raises:
    UserError: the folder is damaged or holds something else.
  """
  with tfds_format.reading(directory, 'data set'):
    builder = tfds.builder_from_directory(directory)
    metadata = builder.info.metadata
    metadata.load_metadata(directory)
    summary = {key: metadata[key] for key in conversion.SUMMARY}
    for split in builder.info.splits.values():
      for path in split.filepaths:
        if not path.stat().length:
          raise ValueError(f'{path} is empty')
  return summary


def read_frames(directory: pathlib.Path, split: str) -> decoded.Samples:
  """Opens one split of a prepared data set of events, decoded at first use.

  Args:
    directory: what `prepare_frames` returned.
    split: one of `EventSet.splits`.

  Returns:
    Frames uint8 [n, time, height, width, 2], labels int32 [n], and ids, str
    [n], in the order of their numbers.

  Raises:
    UserError: the folder is damaged or holds something else.
  """

  def decode(start):
    with tfds_format.reading(directory, f'{split} split'):
      builder = tfds.builder_from_directory(directory)
      count = builder.info.splits[split].num_examples
      shape = builder.info.features['frames'].shape
    return (count, *shape), _decode_batches(directory, split, builder, start)

  with tfds_format.reading(directory, 'data set'):
    key = decoded.files_key(directory)
  return decoded.decode_once(directory / 'decoded', split, key, decode)


def _decode_batches(
  directory, split, builder, start
) -> Iterator[decoded.Samples]:
  """Decodes the samples of a split from a number on, batch after batch."""
  with tfds_format.reading(directory, f'{split} split'):
    examples = tfds_format.examples(builder, split)
    examples = itertools.islice(examples, start, None)
    while batch := list(itertools.islice(examples, _BATCH)):
      yield decoded.Samples(
        np.stack([example['frames'] for example in batch]),
        np.array([example['label'] for example in batch], np.int32),
        np.array([example['id'].decode() for example in batch]),
      )
