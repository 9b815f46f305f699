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
  split_name, frames = settings.get('split', ''), None
  if bool(split_name) != bool(entry.default_split):
    raise UserError(
      f"config.data.split must not be '' for {settings.name}, which does not "
      f'come divided; {entry.default_split!r} is its default'
      if entry.default_split
      else f"config.data.split must be '' for {settings.name}, which comes "
      f'divided, got {split_name!r}'
    )
  if entry.frames is not None:
    _check_window(settings)
  try:
    if split_name:
      splits.canonical_name(split_name)
    if entry.frames is not None:
      frames = data.FrameSpec(
        time_steps=config.model.time_steps,
        binning=settings.binning,
        window_us=round(settings.window_ms * 1000),
        downsample=settings.downsample,
        mirrored=settings.mirrored,
        crop=settings.crop,
      )
  except UserError as error:
    raise UserError(f'config.data: {error}') from None
  return data.LoadOptions(
    frames=frames,
    split_name=split_name,
    data_dir=settings.get('dir', ''),
    manual_dir=settings.get('manual_dir', ''),
    size=tuple(settings.get('size', (0, 0))),
    sensor=settings.get('sensor', ''),
  )


def _check_window(settings):
  if settings.binning == 'window':
    if round(settings.window_ms * 1000) < 1:
      raise UserError(
        "config.data.window_ms must be above 0 for config.data.binning 'window'"
        ': the milliseconds per window, such as --config.data.window_ms=10.0'
      )
  elif settings.window_ms:
    raise UserError(
      'config.data.window_ms must be 0.0 for config.data.binning '
      f'{settings.binning!r}, got {settings.window_ms}; '
      '--config.data.binning=window has windows of so many milliseconds'
    )


def own_samples(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None = None
) -> data.Dataset | None:
  """Opens the user's own samples, once for all that follows.

  Args:
    config: the configuration.
    dataset: arrays of the user's own, if the configuration is for them.

  Returns:
    The arrays, or the samples of the folder that the configuration names; None
    for a data set that its name describes.

  Raises:
    UserError: the folder cannot be read, or arrays came with it.
  """
  if data.DATASETS[config.data.name].source != 'folder':
    return dataset
  if dataset is not None:
    raise _not_for_arrays(config.data.name)
  return _load_named(config)


def sample_spec(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None = None
) -> tuple[tuple[int, ...], int]:
  """Shape of a sample and number of classes, before any data is loaded.

  Checks all that can be checked without the data. Only where nothing but the
  data says them, as in a folder of the user's, it is loaded.

  Args:
    config: the configuration.
    dataset: what `own_samples` returned, or arrays of the user's own.

  Raises:
    UserError: configuration and data set do not match, or an augmentation is
      impossible for such samples.
  """
  if dataset is not None and not isinstance(dataset, data.Dataset):
    raise UserError(
      'the dataset must come from data.from_arrays(...), got '
      f'{type(dataset).__name__}'
    )
  name, entry = config.data.name, data.DATASETS[config.data.name]
  shape = entry.shape(load_options(config).frames)
  num_classes, time_steps = entry.num_classes, config.model.time_steps
  if entry.source == 'arrays' and dataset is None:
    raise UserError(
      f"config.data.name {name!r} stands for arrays of one's own: call "
      'train(config, dataset) or evaluate(workdir, dataset=dataset) with a '
      'dataset of data.from_arrays(...)'
    )
  if entry.source == 'name' and dataset is not None:
    raise _not_for_arrays(name)
  if num_classes is None or shape is None:
    dataset = dataset or _load_named(config)
    shape, num_classes = dataset.sample_shape, dataset.num_classes
  if entry.is_frames != (len(shape) == 4):
    kind, fitting = (
      ('images', 'arrays') if entry.is_frames else ('frames', 'frame_arrays')
    )
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


def _not_for_arrays(name) -> UserError:
  return UserError(
    f'config.data.name is {name!r}, which is loaded by its name; a dataset '
    "of one's own needs a configuration of default_config(data='arrays') or "
    "default_config(data='frame_arrays')"
  )


def _check_augmentation(config, entry, shape):
  augment, name = config.augment, config.data.name
  for field, reason in entry.refused.items():
    if augment.get(field):
      raise UserError(
        f'config.augment.{field} must be {type(augment[field])()} for {name}: '
        f'{reason}'
      )
  side = min(shape[-3:-1]), f'the side of the images of {name}'
  last = config.model.time_steps - 1, 'less than config.model.time_steps'
  limits = {'crop_padding': side, 'translation': side, 'cutout': side}
  for field, (limit, reason) in (limits | {'time_shift': last}).items():
    if augment.get(field, 0) > limit:
      raise UserError(
        f'config.augment.{field} must be at most {limit}, {reason}, got '
        f'{augment[field]}'
      )
  if data.needs_partners(augment) and config.batch_size < 2:
    raise UserError(
      'mix-up and cut-mix need a config.batch_size of at least 2, got '
      f'{config.batch_size}'
    )


def load_dataset(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None = None
) -> data.Dataset:
  """Returns the user's own data set, or loads the one that is named.

  A part of the training samples is held out, and of the others only some are
  kept, if the configuration says so.

  Raises:
    UserError: the data cannot be had, or are not as their entry says, or too
      few training samples would be left.
  """
  if dataset is None:
    dataset = _load_named(config)
  if share := config.data.validation:
    dataset = splits.hold_out(dataset, share)
  if count := config.data.train_samples:
    dataset = splits.keep_some(dataset, count)
  return dataset


def _load_named(config) -> data.Dataset:
  entry, options = data.DATASETS[config.data.name], load_options(config)
  expected = entry.shape(options.frames), entry.num_classes
  dataset = data.load(config.data.name, options)
  loaded = type(dataset).__name__
  if is_dataset := isinstance(dataset, data.Dataset):
    loaded = dataset.sample_shape, dataset.num_classes
  if not is_dataset or any(
    known not in (None, value)
    for known, value in zip(expected, loaded, strict=True)
  ):
    raise UserError(
      f'the entry of data set {config.data.name!r} says (sample_shape, '
      f'num_classes) {expected}, but its function returned {loaded}; it must '
      'return such a Dataset, of data.from_arrays(...) for instance'
    )
  return dataset


def with_digest(
  config: ml_collections.ConfigDict, dataset: data.Dataset | None
) -> ml_collections.ConfigDict:
  """Notes a hash of the user's own samples in a copy of the configuration.

  A directory belongs to a configuration, and so to these samples as well.
  """
  if 'digest' not in config.data:
    return config
  hashes = dataset.train.split_hash, dataset.test.split_hash
  scaling = dataset.scale, dataset.mean, dataset.std
  parts = (*hashes, dataset.num_classes, *scaling)
  config = config.copy_and_resolve_references()
  config.data.digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
  return config


def normalizer(
  config: ml_collections.ConfigDict, dataset: data.Dataset
) -> Normalize:
  """Returns the function from raw images to the network's input."""
  dtype = 'float64' if is_float64(config) else 'float32'
  return functools.partial(dataset.normalize, dtype=dtype)
