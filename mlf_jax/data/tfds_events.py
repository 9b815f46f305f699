"""Frames of recordings as TensorFlow Datasets stores them, without TensorFlow.

Once this file is imported the library knows the builders by name, too:
`tfds.builder('dvs_gesture')`.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import rich.console
import rich.progress
import tensorflow_datasets as tfds

from mlf_jax import locks
from mlf_jax.data import conversion
from mlf_jax.data.event_archives import PREPARING
from mlf_jax.data.event_sets import EVENT_SETS, EventSet
from mlf_jax.data.frames import FrameSpec
from mlf_jax.data.tfds_store import prepare, reading, serialized_examples
from mlf_jax.errors import UserError


@dataclasses.dataclass
class FramesConfig(tfds.core.BuilderConfig):
  """A way to make frames of recordings, as a builder configuration."""

  frames: FrameSpec | None = None


def _frames_configs(paper: FrameSpec) -> list[FramesConfig]:
  """A configuration for each binning; the default one is the paper's."""
  others = [
    FrameSpec(paper.time_steps, binning, downsample=paper.downsample)
    for binning in ('span', 'count')
  ]
  return [FramesConfig(name=s.name, frames=s) for s in (paper, *others)]


class _EventBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Converts recordings to frames, which it goes on with where it was stopped.

  Each sample has `frames` (uint8 [time, height, width, 2]), `label`, `id`,
  `events` (their number, in frames or not) and `padded_share`. How the frames
  were made and what was left out is in the metadata.
  """

  VERSION = tfds.core.Version('1.0.0')
  EVENT_SET: ClassVar[EventSet]

  def __init__(
    self,
    *,
    manual_dir: str = '',
    backwards: str = 'error',
    processes: int | None = None,
    **kwargs,
  ):
    """Takes how to convert, see `conversion.convert`.

    Args:
      manual_dir: the recordings; empty for what the download configuration
        names.
      backwards: what to do with recordings whose time goes back.
      processes: how many work at once.
      **kwargs: those of the library; ArrayRecord is the default format.
    """
    self._manual_dir = manual_dir
    self._backwards = backwards
    self._processes = processes
    super().__init__(**{'file_format': 'array_record', **kwargs})
    self._work = pathlib.Path(self.data_dir).parent / PREPARING

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
      # In order of their numbers, which decides what a named split holds.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def download_and_prepare(self, **kwargs) -> None:
    """Prepares the data set; one process at a time.

    Raises:
      UserError: no recordings, or the folder cannot be written.
    """
    config = kwargs.get('download_config')
    overwrites = config is not None and config.download_mode.overwrite_dataset
    if self.data_path.exists() and not overwrites:
      return  # Where nothing can be written, too.
    with locks.exclusive(
      self._work,
      'the folder',
      'prepares data',
      'name another folder of prepared data, --config.data.dir=DIR, for '
      '`prepare` --data_dir=DIR',
    ):
      for left_behind in self._work.parent.glob('incomplete.*'):
        shutil.rmtree(left_behind)
      # The library makes it though nothing is downloaded.
      kwargs.setdefault('download_dir', self._work / 'downloads')
      try:
        super().download_and_prepare(**kwargs)
        shutil.rmtree(self._work)
      except UserError:
        left = {path.name for path in self._work.iterdir()}
        if left <= {'.lock', 'downloads'}:  # Nothing to go on from.
          shutil.rmtree(self._work)
        raise

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    converted = conversion.convert(
      self.EVENT_SET,
      self._manual_dir or str(dl_manager.manual_dir),
      self.builder_config.frames,
      self._work,
      self._backwards,
      self._processes,
    )
    summary = converted.summary()
    self.info.metadata.update(summary)
    return {
      split: self._generate_examples(
        converted, split, sum(summary['samples'][split].values())
      )
      for split in self.EVENT_SET.splits
    }

  def _generate_examples(self, converted, split: str, total: int) -> Iterator:
    yield from rich.progress.track(
      enumerate(converted.samples(split)),
      f'Writing {split} samples',
      total,
      console=rich.console.Console(stderr=True),
    )


class DvsGesture(_EventBuilder):
  """DVS-Gesture; see `event_sets`."""

  EVENT_SET = EVENT_SETS['dvs_gesture']
  BUILDER_CONFIGS = _frames_configs(EVENT_SET.frames)
  MANUAL_DOWNLOAD_INSTRUCTIONS = EVENT_SET.source


class Cifar10Dvs(_EventBuilder):
  """CIFAR10-DVS, all in one split, since it has no official ones."""

  EVENT_SET = EVENT_SETS['cifar10_dvs']
  BUILDER_CONFIGS = _frames_configs(EVENT_SET.frames)
  MANUAL_DOWNLOAD_INSTRUCTIONS = EVENT_SET.source


class NMnist(_EventBuilder):
  """N-MNIST; see `event_sets`."""

  EVENT_SET = EVENT_SETS['n_mnist']
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
  """Converts recordings and writes `data_dir/<name>/<frames>/1.0.0`.

  All of it is written or nothing; what was converted before a failure is kept
  for the next call.

  Args:
    name: one of `EVENT_SETS`.
    frames: how to make frames.
    data_dir: the folder of all prepared data sets.
    manual_dir: see `recordings.find`.
    backwards: see `event_files.read_aedat`.
    processes: how many work at once; None is one a CPU core.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: no recordings, or the folder cannot be written.
  """
  make = _EVENT_BUILDERS[name]
  if frames.name not in make.builder_configs:
    # Among those of its class, the library takes it without a warning.
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
  return prepare(builder, f'{name}/{frames.name}', data_dir)


def is_taken(name: str, frames: FrameSpec, data_dir: pathlib.Path) -> bool:
  """Whether something stands where a prepared data set would."""
  version = str(_EventBuilder.VERSION)
  return (data_dir / name / frames.name / version).exists()


def read_summary(directory: pathlib.Path) -> dict:
  """What `conversion.Conversion.summary` said when the frames were made.

  Raises:
    UserError: the folder is damaged or holds something else.
  """
  with reading(directory, 'data set'):
    builder = tfds.builder_from_directory(directory)
    metadata = builder.info.metadata
    metadata.load_metadata(directory)
    summary = {key: metadata[key] for key in conversion.SUMMARY}
    for split in builder.info.splits.values():
      for path in split.filepaths:
        if not path.stat().length:
          raise ValueError(f'{path} is empty')
  return summary


def read_frames(
  directory: pathlib.Path, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Decodes one split of a prepared event-camera data set.

  Args:
    directory: what `prepare_frames` returned.
    split: one of `EventSet.splits`.

  Returns:
    Frames uint8 [n, time, height, width, 2], labels int32 [n], and ids, str
    [n], in the order of their numbers.

  Raises:
    UserError: the folder is damaged or holds something else.
  """
  with reading(directory, f'{split} split'):
    builder = tfds.builder_from_directory(directory)
    features = builder.info.features
    count = builder.info.splits[split].num_examples
    frames = np.empty((count, *features['frames'].shape), np.uint8)
    labels = np.empty(count, np.int32)
    ids = []
    for i, record in enumerate(serialized_examples(builder, split)):
      example = features.deserialize_example_np(record)
      frames[i] = example['frames']
      labels[i] = example['label']
      ids.append(example['id'].decode())
    if len(ids) != count:
      raise ValueError(f'{len(ids)} records where {count} should be')
  return frames, labels, np.array(ids)
