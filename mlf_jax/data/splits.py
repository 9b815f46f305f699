"""Division of samples into training, validation and test set."""

import dataclasses
import re

import numpy as np
from jaxtyping import Bool, Int32

from mlf_jax.data.chosen_rows import ChosenRows
from mlf_jax.data.dataset import Dataset, Split
from mlf_jax.errors import UserError


def canonical_name(name: str) -> str:
  """Full name of a split: '' is 'tail', 'random' is 'random-0'.

  Raises:
    UserError: there is no split of this name.
  """
  name = {'': 'tail', 'random': 'random-0'}.get(name, name)
  if name not in ('tail', 'head') and not re.fullmatch(
    r'random-(0|[1-9]\d{0,8})', name
  ):
    raise UserError(
      f'split name {name!r} is unknown; known: tail, head, random, '
      'random-SEED with a whole number'
    )
  return name


def test_mask(
  name: str, labels: Int32[np.ndarray, 'sample'], share: float = 0.1
) -> Bool[np.ndarray, 'sample']:
  """Marks the test samples: the same share of each class.

  Args:
    name: 'tail' takes the last of each class, 'head' the first,
      'random-SEED' draws them.
    labels: class of each sample, in the order of their numbers.
    share: part of each class, rounded to whole samples, at least one.

  Returns:
    True for the members of the test set.

  Raises:
    UserError: there is no split of this name.
  """
  rule, _, seed = canonical_name(name).partition('-')
  # RandomState's stream is frozen by NumPy; default_rng's may change.
  random = np.random.RandomState(int(seed or 0))
  is_test = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    if rule == 'random':
      members = random.permutation(members)
    elif rule == 'tail':
      members = members[::-1]
    is_test[members[: max(1, round(share * len(members)))]] = True
  return is_test


def chosen(split: Split, members: Bool[np.ndarray, 'sample']) -> Split:
  """The marked samples of a split, in order; images are not copied.

  Args:
    split: the samples.
    members: True for those to take.
  """
  return Split(
    ChosenRows(split.images, np.flatnonzero(members)),
    split.labels[members],
    None if split.ids is None else split.ids[members],
  )


def hold_out(dataset: Dataset, share: float) -> Dataset:
  """Holds out a part of the training samples of each class for validation.

  Args:
    dataset: the data set; its mean and standard deviation stay.
    share: part of each class, rounded to whole samples, at least one; drawn by
      the seed 0, whatever the seed of a run.

  Raises:
    UserError: no training sample of a class would be left.
  """
  labels = dataset.train.labels
  is_held_out = test_mask('random-0', labels, share)
  emptied = np.setdiff1d(labels[is_held_out], labels[~is_held_out])
  if emptied.size:
    raise UserError(
      f'no training sample of class {emptied[0]} is left if a share of {share} '
      f'is held out, at least one sample; it has {(labels == emptied[0]).sum()}'
    )
  return dataclasses.replace(
    dataset,
    train=chosen(dataset.train, ~is_held_out),
    validation=chosen(dataset.train, is_held_out),
  )


def keep_some(dataset: Dataset, count: int) -> Dataset:
  """Keeps a number of training samples, the same share of each class.

  Args:
    dataset: the data set; its mean and standard deviation stay.
    count: training samples to keep; drawn by the seed 0, whatever the seed of a
      run, and those of a smaller count are among those of a larger one.

  Raises:
    UserError: there are not so many, or fewer than classes are to be kept.
  """
  labels, num_classes = dataset.train.labels, dataset.num_classes
  if not num_classes <= count <= len(labels):
    raise UserError(
      f'train_samples must lie between {num_classes}, the number of classes, '
      f'and {len(labels)}, the number of training samples, got {count}'
    )
  random = np.random.RandomState(0)
  # Place of each sample within its class, from 0 to 1.
  place = np.empty(len(labels))
  for label in np.unique(labels):
    members = random.permutation(np.flatnonzero(labels == label))
    place[members] = (np.arange(len(members)) + 0.5) / len(members)
  members = np.zeros(len(labels), bool)
  members[np.argsort(place, kind='stable')[:count]] = True
  return dataclasses.replace(dataset, train=chosen(dataset.train, members))
