"""Augmentation of event frames on the device, inside the training step.

Each sample draws from a key of its own (`mlf_jax.data.sample_keys`). Frames are
uint8 counts of events and stay so: they are augmented before they are
normalised.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, Shaped, UInt8

from mlf_jax.errors import UserError, require_axes

# Streams 0, 1 and 3 are those of `mlf_jax.data.augmentation`, 6 to 8 those of
# `mlf_jax.data.mixing`.
_ROTATION_STREAM = 2
_DROP_STREAM = 4
_TIME_SHIFT_STREAM = 5
_SHEAR_STREAM = 9

_MAX_COUNT = 255


def map_samples(
  function: Callable[..., Array],
  stream: int,
  keys: Key[Array, 'batch'],
  *arrays: Shaped[Array, 'batch ...'],
) -> Shaped[Array, 'batch ...']:
  """Calls `function(key, *sample)` for each sample of a batch.

  Args:
    function: draws from the key of a sample.
    stream: number of the random stream, which is folded into the keys: the same
      keys give independent draws in different streams.
    keys: one per sample, from `sample_keys`.
    *arrays: arrays of the samples.
  """
  require_axes('batch', keys=keys)
  require_one_each(keys, *arrays)
  call = lambda key, *sample: function(jax.random.fold_in(key, stream), *sample)
  return jax.vmap(call)(keys, *arrays)


def random_rotation(
  keys: Key[Array, 'batch'],
  frames: UInt8[Array, 'batch time height width channel'],
  degrees: float,
) -> UInt8[Array, 'batch time height width channel']:
  """Rotates each sample about its centre, all timesteps alike; see `rotate`.

  Args:
    keys: one per sample, from `sample_keys`.
    frames: counts of events.
    degrees: the angle is uniform between minus and plus this.

  Returns:
    The frames, same shape and dtype.
  """
  return _at_random_angles(rotate, _ROTATION_STREAM, keys, frames, degrees)


def rotate(
  frames: UInt8[Array, 'time height width channel'],
  angle: Float32[Array, ''],
) -> UInt8[Array, 'time height width channel']:
  """Rotates frames about their centre.

  Every pixel takes the count of the pixel nearest to its origin, so that counts
  stay whole numbers; pixels whose origin lies outside become zero.

  Args:
    frames: counts of events.
    angle: in degrees, counterclockwise as seen with row 0 on top.

  Returns:
    The frames, same shape and dtype.
  """
  require_axes('', angle=angle)
  cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
  return _resample(
    frames,
    lambda row, column: (sin * column + cos * row, cos * column - sin * row),
  )


def random_shear(
  keys: Key[Array, 'batch'],
  frames: UInt8[Array, 'batch time height width channel'],
  degrees: float,
) -> UInt8[Array, 'batch time height width channel']:
  """Shears each sample along its rows, all timesteps alike; see `shear`.

  Args:
    keys: one per sample, from `sample_keys`.
    frames: counts of events.
    degrees: the angle is uniform between minus and plus this.

  Returns:
    The frames, same shape and dtype.
  """
  return _at_random_angles(shear, _SHEAR_STREAM, keys, frames, degrees)


def shear(
  frames: UInt8[Array, 'time height width channel'],
  angle: Float32[Array, ''],
) -> UInt8[Array, 'time height width channel']:
  """Shifts each row by tan(angle) times its height above the middle row.

  Pixels are taken as by `rotate`.

  Args:
    frames: counts of events.
    angle: in degrees, of columns to the right of upright, row 0 on top.

  Returns:
    The frames, same shape and dtype.
  """
  require_axes('', angle=angle)
  slope = jnp.tan(jnp.deg2rad(angle))
  return _resample(frames, lambda row, column: (row, column + slope * row))


def _at_random_angles(transform, stream, keys, frames, degrees):
  """Applies `transform(sample, angle)` with an angle for each sample."""
  _require_frames(frames)

  def transform_sample(key, sample):
    angle = jax.random.uniform(key, (), jnp.float32, -degrees, degrees)
    return transform(sample, angle)

  return map_samples(transform_sample, stream, keys, frames)


def _resample(frames, origin):
  """Gives each pixel the count of the pixel nearest to its origin.

  Args:
    frames: [time, height, width, channel].
    origin: maps row and column to those of the origin, all relative to the
      middle of the frame.
  """
  require_axes('time height width channel', frames=frames)
  height, width = frames.shape[1:3]
  middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
  row = jnp.arange(height, dtype=jnp.float32)[:, None] - middle_row
  column = jnp.arange(width, dtype=jnp.float32)[None] - middle_column
  row, column = origin(*jnp.broadcast_arrays(row, column))
  source = [row + middle_row, column + middle_column]

  def resample_plane(plane):
    # Counts are exact in float32.
    return jax.scipy.ndimage.map_coordinates(
      plane.astype(jnp.float32), source, order=0
    ).astype(plane.dtype)

  over_channels = jax.vmap(resample_plane, in_axes=-1, out_axes=-1)
  return jax.vmap(over_channels)(frames)


def drop_events(
  keys: Key[Array, 'batch'],
  frames: UInt8[Array, 'batch time height width channel'],
  probability: float,
) -> UInt8[Array, 'batch time height width channel']:
  """Drops every single event independently: binomial thinning of the counts.

  Args:
    keys: one per sample, from `sample_keys`.
    frames: counts of events.
    probability: probability that an event is dropped, in [0, 1].

  Returns:
    The counts of the remaining events, same shape and dtype.
  """
  _require_frames(frames)
  thresholds = jnp.asarray(_thinning_thresholds(1 - probability).ravel())

  def thin_sample(key, sample):
    drawn = jax.random.bits(key, sample.shape, jnp.uint32)
    row = (_MAX_COUNT + 1) * sample.astype(jnp.int32)
    left = jnp.zeros_like(row)
    # Inverts the distribution function by bisection.
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
      threshold = jnp.take(thresholds, row + left + step - 1, mode='clip')
      left += step * (drawn > threshold).astype(jnp.int32)
    return left.astype(sample.dtype)

  return map_samples(thin_sample, _DROP_STREAM, keys, frames)


def _thinning_thresholds(keep: float) -> np.ndarray:
  """Thresholds [n, k] for a uniform uint32 number.

  The number exceeds threshold [n, k] with the probability that more than k of n
  events remain, to within 2^-32.
  """
  distribution = np.ones((_MAX_COUNT + 1, _MAX_COUNT + 1))
  probabilities = np.ones(1)
  for n in range(1, _MAX_COUNT + 1):
    # Distribution for n events from that for n - 1.
    probabilities = np.convolve(probabilities, [1 - keep, keep])
    # At most n of n remain: probability 1, exempt from rounding.
    distribution[n, :n] = np.minimum(np.cumsum(probabilities)[:n], 1)
  return np.ceil(distribution * 2.0**32 - 1).clip(0).astype(np.uint32)


def random_time_shift(
  keys: Key[Array, 'batch'],
  frames: UInt8[Array, 'batch time height width channel'],
  max_shift: int,
) -> UInt8[Array, 'batch time height width channel']:
  """Moves the frames of each sample to earlier or later timesteps.

  Args:
    keys: one per sample, from `sample_keys`.
    frames: counts of events.
    max_shift: greatest shift in timesteps; each whole number between minus and
      plus this is equally likely.

  Returns:
    The frames, zero at timesteps that none was moved to; same shape and dtype.
  """
  _require_frames(frames)

  def shift_sample(key, sample):
    start = jax.random.randint(key, (), 0, 2 * max_shift + 1)
    padded = jnp.pad(sample, ((max_shift, max_shift), (0, 0), (0, 0), (0, 0)))
    return jax.lax.dynamic_slice_in_dim(padded, start, len(sample))

  return map_samples(shift_sample, _TIME_SHIFT_STREAM, keys, frames)


def _require_frames(frames):
  require_axes('batch time height width channel', frames=frames)
  if frames.dtype != jnp.uint8:
    raise UserError(
      f'frames are counts of events in uint8, before they are normalised; got '
      f'{frames.dtype}'
    )


def require_one_each(*arrays: Shaped[Array, 'batch ...']) -> None:
  """Raises `UserError` unless all have one entry per sample."""
  if len({array.shape[0] for array in arrays}) != 1:
    shapes = ', '.join(str(array.shape) for array in arrays)
    raise UserError(
      f'one entry per sample is needed on the first axis, got shapes {shapes}'
    )
