"""Where samples come from: data sets by name."""

from mlf_jax.data import (
  cifar,
  cifar_archive,
  digits,
  event_sets,
  moving_digits,
  prepared,
)
from mlf_jax.data.dataset import Dataset
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError, unknown

_IMAGES = ('cifar10', 'cifar100', 'digits')
_EVENTS = ('cifar10_dvs', 'dvs_gesture', 'moving_digits', 'n_mnist')
_SPLITS = ('train', 'test')


def names() -> tuple[str, ...]:
  """Returns the names that `load` knows, in alphabetical order."""
  return tuple(sorted(_IMAGES + _EVENTS))


def event_names() -> tuple[str, ...]:
  """Returns the names of those that are recordings of an event camera."""
  return _EVENTS


def default_frames(name: str) -> FrameSpec:
  """How recordings become frames unless told otherwise.

  As in the paper for the data sets that it uses.

  Args:
    name: one of `event_names()`.

  Raises:
    UserError: no such name.
  """
  if name not in _EVENTS:
    raise unknown('data set of recordings', name, _EVENTS)
  if name == 'moving_digits':
    return moving_digits.FRAMES
  return event_sets.EVENT_SETS[name].frames


def sample_shape(
  name: str, frames: FrameSpec | None = None
) -> tuple[tuple[int, ...], int]:
  """What samples look like, for those who have no use for the data itself.

  Args:
    name: one of `names()`.
    frames: how recordings become frames; for `event_names()` alone.

  Returns:
    Shape of one sample, and the number of classes.
  """
  if name == 'digits':
    return (8, 8, 1), 10
  if name == 'moving_digits':
    return frames.shape(moving_digits.CAMERA.sensor_size), 10
  if name in _EVENTS:
    event_set = event_sets.EVENT_SETS[name]
    return frames.shape(event_set.sensor_size), len(event_set.classes)
  return (32, 32, 3), cifar_archive.ARCHIVES[name].num_classes['label']


def load(
  name: str,
  split: str,
  *,
  data_dir: str = '',
  manual_dir: str = '',
  split_name: str = '',
  frames: FrameSpec | None = None,
) -> Dataset:
  """Loads one split of a data set into memory, preparing it if need be.

  Args:
    name: one of `names()`.
    split: 'train' or 'test'.
    data_dir: where prepared data sets are stored; empty for the place that
      TensorFlow Datasets uses, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
    manual_dir: folder that holds the published archive, or the archive itself,
      or for recordings the folder it was extracted to; empty to download it,
      which only images can be. Not looked at if `data_dir` holds the data set.
    split_name: how train and test are divided, where there is no official
      split: 'tail' (also if empty), 'head', 'random' or 'random-SEED' for
      cifar10_dvs. The other data sets have one split and no name for it.
    frames: how recordings become frames, such as `default_frames(name)`; needed
      for `event_names()`, and for them alone.

  Returns:
    The split.

  Raises:
    UserError: no such name or split, or the data cannot be had.
  """
  if name not in names():
    raise unknown('data set', name, names())
  if split not in _SPLITS:
    raise unknown('split', split, _SPLITS)
  if (frames is not None) != (name in _EVENTS):
    raise UserError(
      f'{name} holds recordings: say with frames=FrameSpec(...) how to make '
      'frames of them'
      if name in _EVENTS
      else f'{name} holds images, which need no frames'
    )
  if split_name and name != 'cifar10_dvs':
    raise UserError(
      f'{name} has one split only; the split name {split_name!r} means nothing'
    )
  if name == 'digits':
    return digits.load(split)
  if name == 'moving_digits':
    return moving_digits.load(split, frames)
  if name in _EVENTS:
    return prepared.load(name, split, frames, data_dir, manual_dir, split_name)
  return cifar.load(name, split, data_dir, manual_dir)
