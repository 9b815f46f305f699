"""Data sets by name, and the digits in particular."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.data import prepared
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError


@pytest.fixture(scope='module')
def digits():
  return {split: data.load('digits', split) for split in ('train', 'test')}


def test_digits_are_raw_grey_images(digits):
  for dataset in digits.values():
    assert dataset.images.shape == (len(dataset), 8, 8, 1)
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int32
    assert dataset.images.max() == dataset.scale == 16


def test_digits_split_is_a_stratified_partition(digits):
  from sklearn.datasets import load_digits

  published = load_digits()
  whole = [image.astype(np.uint8).tobytes() for image in published.images]
  found = [image.tobytes() for part in digits.values() for image in part.images]
  assert sorted(found) == sorted(whole)
  train, test = (np.bincount(digits[s].labels) for s in ('train', 'test'))
  np.testing.assert_array_equal(train + test, np.bincount(published.target))
  np.testing.assert_allclose(test / (train + test), 0.2, atol=0.003)


def test_digits_split_never_changes(digits):
  counts = {s: np.bincount(d.labels).tolist() for s, d in digits.items()}
  assert counts['train'] == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
  assert counts['test'] == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
  assert digits['train'].split_name == 'stratified-20%-seed0'
  assert digits['train'].split_hash == '5dad3791394a60d2'
  assert digits['test'].split_hash == 'e6722747066f8dff'


def test_digits_statistics_are_those_of_the_training_images(digits):
  scaled = digits['train'].images / 16
  for dataset in digits.values():
    np.testing.assert_allclose(dataset.mean, scaled.mean())
    np.testing.assert_allclose(dataset.std, scaled.std())


def test_hash_depends_on_members_and_on_their_order(digits):
  test = digits['test']
  images = test.images.copy()
  images[3, 4, 4, 0] ^= 1
  others = [
    dataclasses.replace(test, images=images),
    dataclasses.replace(test, labels=test.labels[::-1]),
    dataclasses.replace(
      test, images=test.images[::-1], labels=test.labels[::-1]
    ),
    dataclasses.replace(test, images=test.images[1:], labels=test.labels[1:]),
  ]
  hashes = {test.split_hash, *(other.split_hash for other in others)}
  assert len(hashes) == 5


def test_unknown_names_are_answered_with_close_and_known_ones():
  with pytest.raises(UserError, match=r"'cifar-10'.*mean 'cifar10'.*digits"):
    data.load('cifar-10', 'train')
  with pytest.raises(UserError, match=r"'tset'.*mean 'test'\?.*train, test"):
    data.load('digits', 'tset')


@pytest.mark.parametrize('name', data.event_names())
def test_default_frames_are_those_that_recordings_are_prepared_with(name):
  if name == 'moving_digits':
    assert data.default_frames(name) == FrameSpec(10, 'window', 10_000, 2.0)
  else:
    assert data.default_frames(name) == prepared.frames_of(name)


def test_images_have_no_default_frames():
  with pytest.raises(UserError, match=r"'digits' is unknown.*'moving_digits'"):
    data.default_frames('digits')


def test_every_name_is_known_to_load():
  for name in data.names():
    with pytest.raises(UserError, match="split '' is unknown"):
      data.load(name, '')


def test_importing_and_digits_leave_tensorflow_alone():
  code = (
    'import sys, mlf_jax.data as data; data.load("digits", "test");'
    'print({"tensorflow", "tensorflow_datasets"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'set()'
