"""Splits of data sets that come without official ones."""

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.data import splits
from mlf_jax.errors import UserError

LABELS = np.repeat(np.arange(10), 1000).astype(np.int32)


def test_random_splits_are_seeded_and_stratified():
  masks = {
    name: splits.test_mask(name, LABELS) for name in ('random', 'random-1')
  }
  for mask in masks.values():
    assert np.bincount(LABELS[mask]).tolist() == [100] * 10
  assert (masks['random'] == splits.test_mask('random-0', LABELS)).all()
  assert (masks['random'] != masks['random-1']).any()


def test_tail_and_head_take_the_ends_of_each_class():
  for name in ('tail', ''):
    tail = splits.test_mask(name, LABELS).reshape(10, 1000)
    assert tail[:, 900:].all() and not tail[:, :900].any()
  head = splits.test_mask('head', LABELS).reshape(10, 1000)
  assert head[:, :100].all() and not head[:, 100:].any()


@pytest.mark.parametrize(
  'name', ['tails', 'random-', 'random-x', 'random--1', 'random-01']
)
def test_unknown_names_are_refused(name):
  with pytest.raises(UserError, match='known: tail, head, random'):
    splits.canonical_name(name)


def test_a_validation_set_is_stratified_and_apart_from_the_others():
  dataset = data.load('digits')
  held = splits.hold_out(dataset, 0.1)
  assert held.test is dataset.test and held.mean == dataset.mean
  counts = np.bincount(dataset.train.labels)
  np.testing.assert_array_equal(
    np.bincount(held.validation.labels), np.round(0.1 * counts)
  )
  both = np.concatenate([held.train.images, held.validation.images])
  assert sorted(image.tobytes() for image in both) == sorted(
    image.tobytes() for image in dataset.train.images
  )
  # Images and labels still belong together.
  numbers = {i.tobytes(): n for n, i in enumerate(dataset.train.images)}
  for part in (held.train, held.validation):
    members = [numbers[image.tobytes()] for image in np.asarray(part.images)]
    np.testing.assert_array_equal(dataset.train.labels[members], part.labels)


def test_a_validation_set_must_leave_training_samples():
  images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 0, 1])
  dataset = data.from_arrays(images, labels, images, labels)
  with pytest.raises(UserError, match='no training sample of class 1 is left'):
    splits.hold_out(dataset, 0.1)


def test_some_training_samples_are_the_same_share_of_each_class():
  dataset = data.load('digits')
  few, more = (splits.keep_some(dataset, count) for count in (200, 400))
  counts = np.bincount(dataset.train.labels)
  wanted = counts * 200 / len(dataset.train)
  assert len(few.train) == 200 and few.test is dataset.test
  assert np.abs(np.bincount(few.train.labels) - wanted).max() <= 1
  numbers = {i.tobytes(): n for n, i in enumerate(dataset.train.images)}
  members = [numbers[image.tobytes()] for image in np.asarray(few.train.images)]
  np.testing.assert_array_equal(dataset.train.labels[members], few.train.labels)
  more_images = {image.tobytes() for image in np.asarray(more.train.images)}
  assert {i.tobytes() for i in np.asarray(few.train.images)} <= more_images
  assert len(splits.keep_some(dataset, len(dataset.train)).train) == sum(counts)
  for count in (9, len(dataset.train) + 1):
    with pytest.raises(UserError, match='between 10, the number of classes'):
      splits.keep_some(dataset, count)
