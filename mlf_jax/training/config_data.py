"""The data of a configuration: loaded by name, or arrays of the user's own."""

import functools
import hashlib

import ml_collections

from mlf_jax import data
from mlf_jax.data import splits
from mlf_jax.errors import UserError
from mlf_jax.training.config import is_float64
from mlf_jax.training.step import Normalize


def load_options(config: ml_collections.ConfigDict) -> data.LoadOptions:
  """Makes the options of `data.load` for a configuration.

  Raises:
    UserError: the split or the frames of recordings are wrong.
  """
  settings, entry = config.data, data.DATASETS[config.data.name]
  storage = {
    'data_dir': settings.get('dir', ''),
    'manual_dir': settings.get('manual_dir', ''),
  }
  if entry.frames is None:
    return data.LoadOptions(**storage)
  if bool(settings.split) != bool(entry.default_split):
    raise UserError(
      f"config.data.split must not be '' for {settings.name}, which does not "
      f'come divided; {entry.default_split!r} is its default'
      if entry.default_split
      else f"config.data.split must be '' for {settings.name}, which comes "
      f'divided into training and test samples, got {settings.split!r}'
    )
  try:
    if settings.split:
      splits.canonical_name(settings.split)
    frames = data.FrameSpec(
      time_steps=config.model.time_steps,
      binning=settings.binning,
      window_us=round(settings.window_ms * 1000),
      downsample=settings.downsample,
    )
  except UserError as error:
    raise UserError(f'config.data: {error}') from None
  return data.LoadOptions(frames=frames, split_name=settings.split, **storage)


def sample_spec(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None = None
) -> tuple[tuple[int, ...], int]:
  """Shape of a sample and number of classes, before any data is loaded.

  Checks all that can be checked without the data.

  Args:
    config: the configuration.
    dataset: arrays of the user's own, if the configuration is for them.

  Raises:
    UserError: configuration and data set do not match, or an augmentation is
      impossible for such samples.
  """
  name, entry = config.data.name, data.DATASETS[config.data.name]
  shape, num_classes = (
    entry.shape(load_options(config).frames),
    entry.num_classes,
  )
  if num_classes is None:
    if dataset is None:
      raise UserError(
        f"config.data.name {name!r} stands for arrays of one's own: call "
        'train(config, dataset) or evaluate(workdir, dataset=dataset) with a '
        'dataset of data.from_arrays(...)'
      )
    shape, num_classes = dataset.sample_shape, dataset.num_classes
  elif dataset is not None:
    raise UserError(
      f'config.data.name is {name!r}, which is loaded by its name; a dataset '
      "of one's own needs a configuration of default_config(data='arrays') or "
      "default_config(data='frame_arrays')"
    )
  time_steps = config.model.time_steps
  if entry.is_frames != (len(shape) == 4):
    kind = 'frames' if len(shape) == 4 else 'images'
    fitting = 'frame_arrays' if len(shape) == 4 else 'arrays'
    raise UserError(
      f'the dataset holds {kind} of shape {shape}, but config.data.name is '
      f'{name!r}; start from default_config(data={fitting!r})'
    )
  if entry.is_frames and shape[0] != time_steps:
    raise UserError(
      f'config.model.time_steps is {time_steps}, but the dataset has '
      f'{shape[0]} frames per sample'
    )
  _check_augmentation(config, entry, shape)
  return shape, num_classes


def _check_augmentation(config, entry, shape):
  augment, name = config.augment, config.data.name
  for field, reason in entry.refused.items():
    if augment.get(field):
      raise UserError(
        f'config.augment.{field} must be {type(augment[field])()} for {name}: '
        f'{reason}'
      )
  side = min(shape[-3:-1])
  for field in ('crop_padding', 'translation', 'cutout'):
    if augment.get(field, 0) > side:
      raise UserError(
        f'config.augment.{field} must be at most {side}, the side of the '
        f'images of {name}, got {augment[field]}'
      )
  if augment.get('time_shift', 0) >= config.model.time_steps:
    raise UserError(
      'config.augment.time_shift must be below config.model.time_steps '
      f'{config.model.time_steps}, got {augment.time_shift}'
    )
  if data.needs_partners(augment) and config.batch_size < 2:
    raise UserError(
      'config.augment.mixup needs a config.batch_size of at least 2, got '
      f'{config.batch_size}'
    )


def load_dataset(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None = None
) -> data.Dataset:
  """Returns the user's own data set, or loads the one that is named."""
  if dataset is not None:
    return dataset
  return data.load(config.data.name, load_options(config))


def with_digest(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None
) -> ml_collections.ConfigDict:
  """Notes a hash of the user's own arrays in a copy of the configuration.

  A directory belongs to a configuration, and so to these arrays as well.
  """
  if dataset is None or 'digest' not in config.data:
    return config
  parts = (
    dataset.train.split_hash,
    dataset.test.split_hash,
    dataset.num_classes,
    dataset.scale,
    dataset.mean,
    dataset.std,
  )
  config = config.copy_and_resolve_references()
  config.data.digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
  return config


def normalizer(
  config: ml_collections.ConfigDict, dataset: data.Dataset
) -> Normalize:
  """Returns the function from raw images to the network's input."""
  dtype = 'float64' if is_float64(config) else 'float32'
  return functools.partial(dataset.normalize, dtype=dtype)
