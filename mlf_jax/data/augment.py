"""Augmentation on the device, inside the jitted training step.

Each sample draws from a key of its own, made of the seed, the step and the
sample's place in the global batch. So what is drawn does not depend on how the
batch is divided among devices.

Order in the method's paper (Feng et al., IJCAI 2022): flip and crop the raw
image, whose padding is then black, and normalise last.
"""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

# Told apart, so that both may be given the same keys and draw independently.
_FLIP_STREAM = 0
_CROP_STREAM = 1


def sample_keys(
  seed: int | Int[Array, ''],
  step: int | Int[Array, ''],
  position: Int[Array, 'batch'],
) -> Key[Array, 'batch']:
  """Returns the key of each sample of a batch.

  Args:
    seed: of the run.
    step: number of the training step.
    position: place of each sample in the global batch.
  """
  chex.assert_rank(position, 1)
  chex.assert_type(position, int)
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, position)


def random_flip(
  keys: Key[Array, 'batch'],
  images: Shaped[Array, 'batch *time height width channel'],
) -> Shaped[Array, 'batch *time height width channel']:
  """Mirrors the columns of each sample with probability 1/2.

  Args:
    keys: one a sample, from `sample_keys`.
    images: of any dtype. All timesteps of a sample are treated alike.

  Returns:
    The images, same shape and dtype.
  """
  _assert_samples(keys, images)

  def flip_sample(key, image):
    flip = jax.random.bernoulli(jax.random.fold_in(key, _FLIP_STREAM))
    return jnp.where(flip, jnp.flip(image, axis=-2), image)

  return jax.vmap(flip_sample)(keys, images)


def random_crop(
  keys: Key[Array, 'batch'],
  images: Shaped[Array, 'batch *time height width channel'],
  padding: int,
) -> Shaped[Array, 'batch *time height width channel']:
  """Pads with zeros on all sides, then crops to the original size at random.

  Args:
    keys: one a sample, from `sample_keys`.
    images: of any dtype. All timesteps of a sample are treated alike.
    padding: pixels on each side. Each of the (2 padding + 1)^2 places of the
      crop is equally likely.

  Returns:
    The images, same shape and dtype.
  """
  _assert_samples(keys, images)

  def crop_sample(key, image):
    top, left = jax.random.randint(
      jax.random.fold_in(key, _CROP_STREAM), (2,), 0, 2 * padding + 1
    )
    *leading, height, width, channel = image.shape
    none = (0, 0)
    sides = (padding, padding)
    padded = jnp.pad(image, (*[none for _ in leading], sides, sides, none))
    return jax.lax.dynamic_slice(
      padded,
      (*[0 for _ in leading], top, left, 0),
      (*leading, height, width, channel),
    )

  return jax.vmap(crop_sample)(keys, images)


def _assert_samples(keys, images):
  chex.assert_rank(keys, 1)
  chex.assert_rank(images, {4, 5})
  chex.assert_equal_shape_prefix([keys, images], 1)


def normalize(
  images: UInt8[Array, '*batch channel'],
  scale: float,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  dtype: jnp.dtype,
) -> Float[Array, '*batch channel']:
  """Returns `(images / scale - mean) / std`, per channel.

  Args:
    images: raw images or frames.
    scale: the value of `images` that stands for 1.0.
    mean: of each channel, in units of `scale`.
    std: of each channel, in units of `scale`.
    dtype: of the result. The arithmetic is in float32 at least.
  """
  wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
  per_channel = (1,) * (images.ndim - 1) + (-1,)
  mean = jnp.asarray(mean, wide).reshape(per_channel)
  std = jnp.asarray(std, wide).reshape(per_channel)
  return ((images.astype(wide) / scale - mean) / std).astype(dtype)
