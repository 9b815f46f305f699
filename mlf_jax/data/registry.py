"""Data sets by name."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal, NoReturn

from mlf_jax.data.dataset import Dataset, LoadOptions
from mlf_jax.data.events import catalogue, loading, moving_digits
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.folders import loading as folders
from mlf_jax.data.images import cifar, digits, mnist
from mlf_jax.errors import UserError
from mlf_jax.registry import Registry, instance_of


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
  """A data set that is known by name.

      DATASETS['my_images'] = DatasetEntry(
        load=lambda options: from_arrays(*arrays, name='my_images'),
        num_classes=10,
        sample_shape=(28, 28, 1),
      )

  Attributes:
    load: loads it; `frames` and `split_name` of the options are complete.
    num_classes: number of classes; None if it is known only from the data.
    sample_shape: (h, w, c) of static images, or a function of the `FrameSpec`
      that returns (t, h, w, c); None if it is known only from the data.
    is_frames: samples are frames of an event camera, not static images.
    frames: how recordings become frames by default; None if there are none.
    default_split: name of the default split; '' if the data always come
      divided.
    source: 'name': its name says where the samples are; 'folder': they are the
      user's, in the folder that `config.data.dir` names; 'arrays': they are the
      user's, handed to `train`.
    refused: augmentations that would change the class of a sample, by the name
      of the setting, with the reason; they are off by default.
    augmented: static images are mirrored and cropped by default, as in the
      method's paper; otherwise nothing is augmented unless asked for.
  """

  load: Callable[[LoadOptions], Dataset]
  num_classes: int | None
  sample_shape: tuple[int, ...] | Callable[[FrameSpec], tuple[int, ...]] | None
  is_frames: bool = False
  frames: FrameSpec | None = None
  default_split: str = ''
  source: Literal['name', 'folder', 'arrays'] = 'name'
  refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
  augmented: bool = False

  def shape(self, frames: FrameSpec | None = None) -> tuple[int, ...] | None:
    """Shape of a sample, without loading the data, if it is known without.

    Args:
      frames: how recordings become frames; by default those of the data set.
    """
    if callable(self.sample_shape):
      return self.sample_shape(frames or self.frames)
    return self.sample_shape


# To add a data set, add an entry.
DATASETS: Registry[DatasetEntry] = Registry(
  'data set', instance_of(DatasetEntry)
)


def load(name: str, options: LoadOptions | None = None) -> Dataset:
  """Loads a data set into memory, preparing it first if needed.

  Args:
    name: one of `DATASETS`.
    options: where the data are and how frames are made.

  Returns:
    The data set, training and test samples.

  Raises:
    UserError: there is no such data set, an option is not for this data set,
      or the data cannot be had.
  """
  entry, options = DATASETS[name], options or LoadOptions()
  if options.frames is not None and entry.frames is None:
    raise UserError(f'{name} holds no recordings to be made frames of')
  if options.split_name and not entry.default_split:
    raise UserError(
      f'{name} has one split only; the split name {options.split_name!r} means '
      'nothing'
    )
  return entry.load(
    dataclasses.replace(
      options,
      frames=options.frames or entry.frames,
      split_name=options.split_name or entry.default_split,
    )
  )


def _refuse_to_load(options: LoadOptions) -> NoReturn:
  del options
  raise UserError(
    "data of one's own cannot be loaded by name: make them a data set with "
    'data.from_arrays(...) and call train(config, dataset)'
  )


DATASETS['digits'] = DatasetEntry(
  lambda _: digits.load(),
  10,
  (8, 8, 1),
  refused=digits.REFUSED_AUGMENTATIONS,
  augmented=True,
)
for _name, _archive in cifar.ARCHIVES.items():
  DATASETS[_name] = DatasetEntry(
    functools.partial(cifar.load, _name),
    _archive.num_classes['label'],
    (32, 32, 3),
    augmented=True,
  )
for _name, _published in mnist.PUBLISHED.items():
  DATASETS[_name] = DatasetEntry(
    functools.partial(mnist.load, _name),
    len(_published.class_names),
    (28, 28, 1),
    refused=digits.REFUSED_AUGMENTATIONS if _name == 'mnist' else {},
    augmented=True,
  )
DATASETS['moving_digits'] = DatasetEntry(
  lambda options: moving_digits.load(options.frames),
  10,
  lambda frames: frames.shape(moving_digits.CAMERA.sensor_size),
  is_frames=True,
  frames=moving_digits.FRAMES,
  refused=digits.REFUSED_AUGMENTATIONS,
)
for _name, _event_set in catalogue.EVENT_SETS.items():
  DATASETS[_name] = DatasetEntry(
    functools.partial(loading.load, _name),
    len(_event_set.classes),
    lambda frames, size=_event_set.sensor_size: frames.shape(size),
    is_frames=True,
    frames=_event_set.frames,
    default_split=_event_set.default_split,
    refused=_event_set.refused_augmentations,
  )
DATASETS['folder'] = DatasetEntry(
  folders.load_images, None, None, default_split='random-0', source='folder'
)
DATASETS['recording_folder'] = DatasetEntry(
  folders.load_recordings,
  None,
  None,
  is_frames=True,
  frames=FrameSpec(time_steps=10, binning='span'),
  default_split='random-0',
  source='folder',
)
DATASETS['arrays'] = DatasetEntry(_refuse_to_load, None, None, source='arrays')
DATASETS['frame_arrays'] = DatasetEntry(
  _refuse_to_load, None, None, is_frames=True, source='arrays'
)
DATASETS.seal()
