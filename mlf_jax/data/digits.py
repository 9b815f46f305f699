"""The handwritten digits that ship with scikit-learn: no download at all."""

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from mlf_jax.data import splits
from mlf_jax.data.dataset import Dataset

SPLIT_NAME = 'stratified-20%-seed0'
# The largest value of a pixel.
SCALE = 16
_TEST_SHARE = 0.2


def load(split: str) -> Dataset:
  """Loads one split of the 1,797 real 8x8 grey images of 10 digits.

  The data set has no official split. This one is stratified and fixed: 20 % of
  each class, rounded, is the test set, and the same members are in it whatever
  the library versions.

  Args:
    split: 'train' or 'test'.

  Returns:
    images uint8 [n, 8, 8, 1] with values 0..16, labels int32 [n], in
    scikit-learn's order.

  Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits",
  UCI Machine Learning Repository, 1998 (its test part).
  """
  images, labels = published()
  train_images = images[members('train', labels)] / SCALE
  of_split = members(split, labels)
  return Dataset(
    name='digits',
    split=split,
    split_name=SPLIT_NAME,
    images=images[of_split, ..., np.newaxis],
    labels=labels[of_split],
    num_classes=10,
    scale=SCALE,
    mean=(float(train_images.mean()),),
    std=(float(train_images.std()),),
  )


def published() -> tuple[
  UInt8[np.ndarray, 'digit 8 8'], Int32[np.ndarray, 'digit']
]:
  """All images, values 0..16, and labels, in scikit-learn's order."""
  # Importing scikit-learn takes a second that only this data set should cost.
  from sklearn.datasets import load_digits

  bunch = load_digits()
  return bunch.images.astype(np.uint8), bunch.target.astype(np.int32)


def members(
  split: str, labels: Int32[np.ndarray, 'digit']
) -> Int64[np.ndarray, 'member']:
  """Numbers of the images in a split, in increasing order.

  Args:
    split: 'train' or 'test'.
    labels: of all images, from `published`.
  """
  is_test = splits.test_mask('random-0', labels, _TEST_SHARE)
  return np.flatnonzero(is_test if split == 'test' else ~is_test)
