"""The handwritten digits that ship with scikit-learn: no download at all.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998 (its test part).
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from mlf_jax.data import splits
from mlf_jax.data.dataset import Dataset, Split

SPLIT_NAME = 'stratified-20%-seed0'
# The largest value of a pixel.
SCALE = 16
_TEST_SHARE = 0.2
# Augmentations that change the class, by the name of the setting.
REFUSED_AUGMENTATIONS = {'flip': 'the mirror image of a digit is no digit'}


def load() -> Dataset:
  """Loads the 1,797 real 8x8 grey images of 10 digits.

  The data set has no official split. This one is stratified and fixed: 20 % of
  each class, rounded, is the test set, with the same members under every
  library version.

  Returns:
    Images uint8 [n, 8, 8, 1] with values 0..16, labels int32 [n], in
    scikit-learn's order.
  """
  images, labels = published_images()
  train, test = split_members(labels)
  scaled = images[train] / SCALE
  return Dataset(
    name='digits',
    split_name=SPLIT_NAME,
    num_classes=10,
    train=Split(images[train, ..., np.newaxis], labels[train]),
    test=Split(images[test, ..., np.newaxis], labels[test]),
    scale=SCALE,
    mean=(float(scaled.mean()),),
    std=(float(scaled.std()),),
  )


def published_images() -> tuple[
  UInt8[np.ndarray, 'digit 8 8'], Int32[np.ndarray, 'digit']
]:
  """All images, values 0..16, and labels, in scikit-learn's order."""
  # Importing scikit-learn is slow, and only this data set needs it.
  from sklearn.datasets import load_digits

  bunch = load_digits()
  return bunch.images.astype(np.uint8), bunch.target.astype(np.int32)


def split_members(
  labels: Int32[np.ndarray, 'digit'],
) -> tuple[Int64[np.ndarray, 'member'], Int64[np.ndarray, 'member']]:
  """Numbers of the training images and of the test images, increasing.

  Args:
    labels: labels of all images, from `published_images`.
  """
  is_test = splits.test_mask('random-0', labels, _TEST_SHARE)
  return np.flatnonzero(~is_test), np.flatnonzero(is_test)
