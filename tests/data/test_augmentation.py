"""Augmentation draws what the paper draws, however the batch is divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlf_jax import data

PADDING = 2


def draw_images(batch, *sample_shape):
  """Returns images without any zero, so that padding is told from content."""
  random = np.random.default_rng(0)
  images = random.integers(1, 256, (batch, *sample_shape), np.uint8)
  return jnp.asarray(images)


def draw_keys(batch, seed=0, step=0):
  return data.sample_keys(seed, step, jnp.arange(batch, dtype=jnp.int32))


def pairs(images, results):
  return zip(np.asarray(images), np.asarray(results), strict=True)


def crop_offsets(image, cropped):
  """Returns every (top, left) at which `cropped` lies in the padded image."""
  height, width = image.shape[-3:-1]
  sides = [(0, 0)] * (image.ndim - 3) + [(PADDING, PADDING)] * 2 + [(0, 0)]
  padded = np.pad(image, sides)
  return [
    (top, left)
    for top in range(2 * PADDING + 1)
    for left in range(2 * PADDING + 1)
    if np.array_equal(
      padded[..., top : top + height, left : left + width, :], cropped
    )
  ]


@pytest.mark.parametrize('sample_shape', [(5, 6, 3), (3, 5, 6, 2)])
def test_flip_mirrors_columns_of_half_of_the_samples(sample_shape):
  images = draw_images(400, *sample_shape)
  flipped = data.random_flip(draw_keys(400), images)
  assert flipped.dtype == images.dtype
  mirrored = 0
  for image, result in zip(
    np.asarray(images), np.asarray(flipped), strict=True
  ):
    if not np.array_equal(image, result):
      np.testing.assert_array_equal(image[..., ::-1, :], result)
      mirrored += 1
  # Binomial with mean 200 and standard deviation 10.
  assert 150 < mirrored < 250


def test_flip_with_the_same_keys_is_an_involution():
  images, keys = draw_images(64, 5, 6, 3), draw_keys(64)
  once = data.random_flip(keys, images)
  assert not np.array_equal(once, images)
  np.testing.assert_array_equal(data.random_flip(keys, once), images)


@pytest.mark.parametrize('sample_shape', [(5, 6, 3), (3, 5, 6, 2)])
def test_crop_is_a_slice_of_the_zero_padded_image_at_any_offset(sample_shape):
  images = draw_images(600, *sample_shape)
  cropped = data.random_crop(draw_keys(600), images, PADDING)
  assert cropped.shape == images.shape
  assert cropped.dtype == images.dtype
  counts = {}
  for image, result in zip(
    np.asarray(images), np.asarray(cropped), strict=True
  ):
    (offset,) = crop_offsets(image, result)
    counts[offset] = counts.get(offset, 0) + 1
  assert len(counts) == (2 * PADDING + 1) ** 2
  # Binomial with mean 24 and standard deviation 4.8.
  assert max(counts.values()) < 54


def test_no_padding_leaves_the_image():
  images = draw_images(8, 5, 6, 3)
  np.testing.assert_array_equal(
    data.random_crop(draw_keys(8), images, 0), images
  )


def test_flip_and_crop_draw_independently_from_the_same_keys():
  images, keys = draw_images(600, 5, 6, 3), draw_keys(600)
  flipped = data.random_flip(keys, images)
  cropped = data.random_crop(keys, images, PADDING)
  was_flipped = np.any(np.asarray(flipped != images), axis=(1, 2, 3))
  tops, lefts = np.transpose(
    [crop_offsets(image, result)[0] for image, result in pairs(images, cropped)]
  )
  # A correlation of 600 independent pairs has standard deviation 0.04.
  assert abs(np.corrcoef(was_flipped, tops)[0, 1]) < 0.2
  assert abs(np.corrcoef(was_flipped, lefts)[0, 1]) < 0.2
  assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


def test_keys_differ_between_seeds_steps_and_positions():
  keys = [
    jax.random.key_data(draw_keys(16, seed, step))
    for seed in range(3)
    for step in range(3)
  ]
  assert len(np.unique(np.concatenate(keys), axis=0)) == 9 * 16


def test_keys_are_the_same_for_traced_seed_and_step():
  traced = jax.jit(data.sample_keys)(
    jnp.int32(5), jnp.int32(7), jnp.arange(4, dtype=jnp.int32)
  )
  np.testing.assert_array_equal(
    jax.random.key_data(traced), jax.random.key_data(draw_keys(4, 5, 7))
  )


def augment(images, position):
  keys = data.sample_keys(3, 11, position)
  return data.random_crop(keys, data.random_flip(keys, images), PADDING)


def test_result_does_not_depend_on_how_the_batch_is_divided():
  images = draw_images(16, 5, 6, 3)
  position = jnp.arange(16, dtype=jnp.int32)
  whole = augment(images, position)

  halves = [augment(images[h], position[h]) for h in np.split(np.arange(16), 2)]
  np.testing.assert_array_equal(np.concatenate(halves), whole)

  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  by_batch = NamedSharding(mesh, PartitionSpec('data'))
  sharded = jax.jit(augment)(*jax.device_put((images, position), by_batch))
  np.testing.assert_array_equal(sharded, whole)

  mapped = jax.shard_map(
    augment,
    mesh=mesh,
    in_specs=PartitionSpec('data'),
    out_specs=PartitionSpec('data'),
    check_vma=False,
  )
  np.testing.assert_array_equal(jax.jit(mapped)(images, position), whole)


@pytest.mark.parametrize('shape', [(4, 5, 6, 3), (4, 2, 5, 6, 3)])
def test_normalize_is_per_channel_in_units_of_the_scaled_image(shape):
  images = draw_images(*shape)
  mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
  result = data.normalize(images, 255, mean, std, jnp.float32)
  assert result.dtype == jnp.float32
  expected = (np.asarray(images) / 255 - mean) / std
  np.testing.assert_allclose(result, expected, atol=1e-6)


def test_normalize_computes_in_full_precision_before_it_rounds():
  images = draw_images(4, 5, 6, 1)
  wide = data.normalize(images, 16, (0.3,), (0.37,), jnp.float32)
  half = data.normalize(images, 16, (0.3,), (0.37,), jnp.bfloat16)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(half, wide.astype(jnp.bfloat16))


def test_normalize_in_double_precision(x64):
  images = draw_images(4, 5, 6, 1)
  result = data.normalize(images, 255, (0.3,), (0.37,), jnp.float64)
  expected = (np.asarray(images) / 255 - 0.3) / 0.37
  np.testing.assert_allclose(result, expected, rtol=1e-14)
