"""The fields that only configurations of event data sets have."""

import ml_collections

from mlf_jax import data
from mlf_jax.data import splits
from mlf_jax.errors import UserError


def add_fields(c: ml_collections.ConfigDict) -> None:
  """Adds what only recordings need; each becomes `model.time_steps` frames.

  The method's paper does not augment event data: all of it is off.

  Args:
    c: with the name of the data set in `c.data`, and with an empty `c.augment`.
  """
  # How training and test samples are told apart: 'tail', 'head', 'random' or
  # 'random-SEED' for cifar10_dvs; empty where the data set comes divided.
  c.data.split = 'tail' if c.data.name == 'cifar10_dvs' else ''
  frames = data.default_frames(c.data.name)
  # Frames of equal windows from the first event on; of equal parts of the whole
  # recording ('span'); or of equally many events ('count').
  c.data.binning = frames.binning
  # Length of a window in milliseconds; 0 for the other binnings.
  c.data.window_ms = frames.window_us / 1000
  # Pixels of the sensor a pixel of a frame, along each side.
  c.data.downsample = frames.downsample

  c.augment.flip = False
  # Greatest shift in pixels, along each side.
  c.augment.translation = 0
  # Greatest angle in degrees, to both sides.
  c.augment.rotation = 0.0
  # Side in pixels of a square without events.
  c.augment.cutout = 0
  # Probability of each single event to be dropped.
  c.augment.event_drop = 0.0
  # Greatest shift in timesteps, to both sides.
  c.augment.time_shift = 0
  # Above 0, pairs are mixed, with shares from Beta(mixup, mixup).
  c.augment.mixup = 0.0


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError` for what depends on more than one of the fields."""
  settings, augment = config.data, config.augment
  if settings.name == 'cifar10_dvs':
    if not settings.split:
      raise UserError(
        f"config.data.split must not be '' for {settings.name}, which does not "
        "come divided; 'tail' is its default"
      )
    try:
      splits.check(settings.split)
    except UserError as error:
      raise UserError(f'config.data.split: {error}') from None
  elif settings.split:
    raise UserError(
      f"config.data.split must be '' for {settings.name}, which comes divided "
      f'into training and test samples, got {settings.split!r}'
    )
  if settings.binning != 'window' and settings.window_ms:
    raise UserError(
      'config.data.window_ms must be 0.0 with config.data.binning '
      f'{settings.binning!r}, which has no windows, got {settings.window_ms}'
    )
  if settings.binning == 'window' and settings.window_ms < 0.001:
    raise UserError(
      'config.data.window_ms must be at least 0.001, a microsecond, with '
      f"config.data.binning 'window', got {settings.window_ms}"
    )
  if augment.flip and settings.name == 'dvs_gesture':
    raise UserError(
      'config.augment.flip must be False for dvs_gesture: a mirrored gesture '
      "is one of another class, the left hand's wave becomes the right hand's"
    )
  if augment.time_shift >= config.model.time_steps:
    raise UserError(
      'config.augment.time_shift must be below config.model.time_steps '
      f'{config.model.time_steps}, got {augment.time_shift}'
    )
  if augment.mixup and config.batch_size < 2:
    raise UserError(
      'config.augment.mixup needs a config.batch_size of at least 2, got '
      f'{config.batch_size}'
    )
