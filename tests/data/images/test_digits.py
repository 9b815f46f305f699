"""The handwritten digits of scikit-learn."""

import numpy as np
import pytest

from mlf_jax.data.images import digits


@pytest.fixture(scope='module')
def dataset():
  return digits.load()


def test_digits_are_raw_grey_images(dataset):
  for split in (dataset.train, dataset.test):
    assert split.images.shape == (len(split), 8, 8, 1)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int32
    assert split.images.max() == dataset.scale == 16
  scaled = dataset.train.images / 16
  np.testing.assert_allclose(dataset.mean, scaled.mean())
  np.testing.assert_allclose(dataset.std, scaled.std())


def test_split_is_a_stratified_partition_that_never_changes(dataset):
  images, labels = digits.published_images()
  splits = (dataset.train, dataset.test)
  found = [image.tobytes() for split in splits for image in split.images]
  assert sorted(found) == sorted(image.tobytes() for image in images)
  train, test = (np.bincount(split.labels) for split in splits)
  np.testing.assert_array_equal(train + test, np.bincount(labels))
  assert test.tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
  assert dataset.split_name == 'stratified-20%-seed0'
  assert dataset.train.split_hash == '5dad3791394a60d2'
  assert dataset.test.split_hash == 'e6722747066f8dff'
