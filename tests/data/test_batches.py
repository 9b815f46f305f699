"""Batches: which samples, when, and how often."""

import dataclasses

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.errors import UserError


def numbered(size, sample_shape=(2, 2, 1)):
  """Returns a split whose labels number the samples."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (size, *sample_shape), np.uint8)
  return data.Split(images, np.arange(size, dtype=np.int32))


def epoch_members(split, batch_size, seed, epoch):
  steps = data.steps_per_epoch(split, batch_size)
  batches = [
    data.train_batch(split, batch_size, seed, epoch * steps + i)
    for i in range(steps)
  ]
  return np.concatenate([batch['label'] for batch in batches])


@pytest.mark.parametrize('sample_shape', [(4, 4, 3), (5, 4, 4, 2)])
def test_train_batch_holds_samples_of_the_data_set(sample_shape):
  split = numbered(20, sample_shape)
  batch = data.train_batch(split, 6, seed=1, step=4)
  dtypes = {'image': np.uint8, 'label': np.int32, 'position': np.int32}
  assert {k: v.dtype for k, v in batch.items()} == dtypes
  np.testing.assert_array_equal(batch['image'], split.images[batch['label']])
  np.testing.assert_array_equal(batch['position'], np.arange(6))


def test_train_batch_is_a_pure_function_of_seed_and_step():
  split = numbered(23)
  steps = range(12)
  forward = {s: data.train_batch(split, 5, 3, s)['label'] for s in steps}
  for step in reversed(steps):
    # Neither another batch nor what a caller does to one disturbs it.
    data.train_batch(split, 4, seed=9, step=7)['image'][:] = 0
    again = data.train_batch(split, 5, 3, step)['label']
    np.testing.assert_array_equal(again, forward[step])
    again[:] = 0


@pytest.mark.parametrize('batch_size', [2, 3, 6, 7])
def test_every_sample_has_another_one_of_the_batch_as_its_partner(batch_size):
  split = numbered(20, (5, 4, 4, 2))
  plain = data.train_batch(split, batch_size, 1, 2)
  batch = data.train_batch(split, batch_size, 1, 2, with_partners=True)
  assert set(batch) == set(plain) | {f'partner_{name}' for name in plain}
  partners = batch['partner_position']
  assert sorted(partners) == list(range(batch_size))
  assert not np.any(partners == batch['position'])
  for name, value in plain.items():
    np.testing.assert_array_equal(batch[name], value)
    np.testing.assert_array_equal(batch[f'partner_{name}'], value[partners])
    assert batch[f'partner_{name}'].dtype == value.dtype


@pytest.mark.parametrize('batch_size', [1, 5, 12, 23])
def test_epoch_visits_no_sample_twice_and_drops_only_the_remainder(batch_size):
  members = epoch_members(numbered(23), batch_size, seed=0, epoch=2)
  assert len(members) == 23 // batch_size * batch_size
  assert len(set(members.tolist())) == len(members)


def test_every_sample_is_equally_likely_in_every_place():
  split = numbered(10)
  orders = np.stack([epoch_members(split, 10, 0, e) for e in range(2000)])
  for sample in range(10):
    counts = np.bincount(np.argmax(orders == sample, axis=1), minlength=10)
    # Binomial with mean 200 and standard deviation 13.4.
    np.testing.assert_allclose(counts, 200, atol=67)
  assert any(epoch_members(split, 10, 1, 0) != orders[0])
  # The order never changes, and a large step finds its place.
  order = epoch_members(numbered(10), 10, seed=7, epoch=3)
  assert order.tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]
  late = [data.train_batch(split, 5, 0, 2**40 + i)['label'] for i in (0, 1)]
  np.testing.assert_array_equal(np.sort(np.concatenate(late)), split.labels)


@pytest.mark.parametrize('batch_size', [-4, 0, 11])
def test_batch_size_out_of_range_is_a_one_line_error(batch_size):
  with pytest.raises(UserError, match=f'{batch_size} .*10') as info:
    data.train_batch(numbered(10), batch_size, 0, 0)
  assert '\n' not in str(info.value)
  if batch_size <= 0:
    with pytest.raises(UserError, match=str(batch_size)):
      next(data.eval_batches(numbered(10), batch_size))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_evaluation_names_the_sample_that_is_not_finite(value):
  images = np.zeros((10, 4, 4, 3), np.float32)
  images[7, 1, 2, 0] = value
  split = dataclasses.replace(numbered(10), images=images)
  message = r'the images: sample 7 holds NaN or infinity, first at \[1, 2, 0\]'
  with pytest.raises(UserError, match=message):
    list(data.eval_batches(split, 4))


@pytest.mark.parametrize('batch_size', [1, 3, 10, 64])
@pytest.mark.parametrize('sample_shape', [(4, 4, 3), (5, 4, 4, 2)])
def test_eval_covers_every_sample_once_in_batches_of_one_shape(
  batch_size, sample_shape
):
  split = numbered(10, sample_shape)
  batches = list(data.eval_batches(split, batch_size))
  for batch in batches:
    assert batch['image'].shape == (batch_size, *sample_shape)
    assert batch['label'].shape == batch['mask'].shape == (batch_size,)
    dtypes = [batch[k].dtype for k in ('image', 'label', 'mask')]
    assert dtypes == [np.uint8, np.int32, np.float32]
  joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  real = joined['mask'] == 1
  np.testing.assert_array_equal(joined['label'][real], split.labels)
  np.testing.assert_array_equal(joined['image'][real], split.images)
  assert not joined['mask'][~real].any()
