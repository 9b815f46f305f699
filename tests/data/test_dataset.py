"""Data sets of arrays, as a user makes them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.errors import UserError


def arrays(shape=(4, 4, 3), n=6, dtype=np.uint8):
  """Arguments of `from_arrays`: training and test images and labels."""
  random = np.random.default_rng(0)
  images = random.integers(1, 200, (n + 2, *shape)).astype(dtype)
  labels = np.arange(n + 2) % 3
  return {
    'train_images': images[:n],
    'train_labels': labels[:n],
    'test_images': images[n:],
    'test_labels': labels[n:],
  }


def test_images_of_your_own_are_a_data_set_with_their_own_statistics():
  given = arrays()
  given['train_images'][..., 1] = 7  # A constant channel stays finite.
  dataset = data.from_arrays(**given)
  np.testing.assert_array_equal(dataset.train.images, given['train_images'])
  np.testing.assert_array_equal(dataset.test.labels, given['test_labels'])
  assert dataset.train.labels.dtype == np.int32
  assert (len(dataset.train), len(dataset.test)) == (6, 2)
  assert dataset.num_classes == 3 and dataset.sample_shape == (4, 4, 3)
  assert dataset.name == 'arrays' and dataset.scale == 255
  normalized = dataset.normalize(dataset.train.images, jnp.float32)
  np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(normalized.std((0, 1, 2)), [1, 0, 1], atol=1e-5)


@pytest.mark.parametrize('dtype', ['int16', 'float16', 'float64', 'bool'])
def test_images_of_any_real_dtype_are_taken_as_they_are(dtype):
  given = arrays(dtype=dtype)
  # Lists and whole floats will do as labels.
  given['train_labels'] = given['train_labels'].astype(float).tolist()
  dataset = data.from_arrays(**given, mean=(0, 0, 0), std=(1, 1, 1))
  assert dataset.scale == 1
  np.testing.assert_allclose(
    dataset.normalize(dataset.test.images, jnp.float32), given['test_images']
  )


def test_frames_keep_their_counts():
  given = arrays((5, 4, 4, 2))
  dataset = data.from_arrays(**given, name='my_camera', num_classes=7)
  assert dataset.sample_shape == (5, 4, 4, 2)
  assert (dataset.name, dataset.num_classes) == ('my_camera', 7)
  np.testing.assert_array_equal(
    dataset.normalize(dataset.test.images, jnp.float32), given['test_images']
  )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train_images': np.zeros((6, 4, 4))}, r'must be static im.*\(6, 4, 4\)'),
    ({'test_images': np.zeros((0, 4, 4, 3))}, 'test_images are empty'),
    ({'train_images': np.zeros((6, 4, 4, 3), complex)}, 'not complex128'),
    ({'train_images': np.zeros((6, 5, 4, 4, 2))}, 'must be uint8, not float64'),
    ({'test_images': np.full((2, 4, 4, 3), np.nan)}, 'sample 0 has NaN'),
    ({'test_images': np.zeros((2, 4, 5, 3))}, 'they must agree'),
    (
      {'test_images': np.zeros((2, 4, 4, 3))},
      'train_images are uint8 and test',
    ),
    ({'train_images': np.zeros((6, 4, 4, 3))}, 'test_images are uint8 and tra'),
    (
      {'train_labels': np.arange(6) % 3 + 1},
      'hold no 0, .*or pass num_classes',
    ),
    ({'train_labels': np.zeros(5)}, 'train_labels are 5, but train_images are'),
    ({'train_labels': np.eye(6)}, r'shape \(6, 6\); one-hot labels become'),
    ({'test_labels': [0.5, 1]}, 'test_labels must be whole numbers'),
    ({'test_labels': ['cat', 'dog']}, 'test_labels must be whole numbers'),
    ({'test_labels': [0, -1]}, 'hold the class -1, but classes count from 0'),
    ({'num_classes': 2}, 'hold the class 2, but .* 0 to 1, as num_classes is'),
    ({'scale': 0}, 'scale must be positive and finite, got 0'),
    ({'mean': (0.5,)}, 'mean must have one value per channel, 3, got 1'),
    ({'std': (1.0, 0.0, 1.0)}, 'std must be positive and finite'),
    ({'mean': (0, 0, np.inf)}, 'mean must be finite'),
  ],
)
def test_a_mistake_is_one_line_that_names_the_argument(changes, message):
  with pytest.raises(UserError, match=message) as error:
    data.from_arrays(**(arrays() | changes))
  assert '\n' not in str(error.value)


def test_a_class_may_lack_samples_if_the_number_of_classes_is_said():
  given = arrays() | {'train_labels': np.arange(6) % 2 + 1}
  assert data.from_arrays(**given, num_classes=3).num_classes == 3
  assert data.from_arrays(**given, class_names='abc').num_classes == 3


def test_a_dataset_is_shown_without_its_samples():
  dataset = data.from_arrays(**arrays(), name='mine')
  assert repr(dataset) == (
    "Dataset('mine', split_name='given', num_classes=3, "
    'train=Split((6, 4, 4, 3) uint8), test=Split((2, 4, 4, 3) uint8))'
  )


def test_hash_depends_on_members_and_on_their_order():
  split = data.load('digits').test
  images = split.images.copy()
  images[3, 4, 4, 0] ^= 1
  others = [
    dataclasses.replace(split, images=images),
    dataclasses.replace(split, labels=split.labels[::-1]),
    data.Split(split.images[::-1], split.labels[::-1]),
    data.Split(split.images[1:], split.labels[1:]),
  ]
  hashes = {split.split_hash, *(other.split_hash for other in others)}
  assert len(hashes) == 5


@pytest.mark.parametrize('shape', [(5, 6, 3), (2, 5, 6, 3)])
def test_normalize_is_per_channel_in_units_of_the_scaled_image(shape):
  mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
  given = arrays(shape)
  dataset = data.from_arrays(**given, scale=255, mean=mean, std=std)
  images = given['test_images']
  wide = dataset.normalize(images, jnp.float32)
  assert wide.dtype == jnp.float32
  np.testing.assert_allclose(wide, (images / 255 - mean) / std, atol=1e-6)
  # The arithmetic is in float32 before it is rounded.
  half = dataset.normalize(images, jnp.bfloat16)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(half, wide.astype(jnp.bfloat16))


def test_normalize_in_double_precision(x64):
  given = arrays()
  dataset = data.from_arrays(
    **given, scale=255, mean=(0.3,) * 3, std=(0.7,) * 3
  )
  result = dataset.normalize(given['test_images'], jnp.float64)
  expected = (given['test_images'] / 255 - 0.3) / 0.7
  np.testing.assert_allclose(result, expected, rtol=1e-14)
