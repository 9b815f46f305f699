"""Batches on the host, in NumPy.

A training batch is a pure function of the seed and the step, so that a resumed
run sees the same batches as an uninterrupted one and no iterator is saved.
"""

import functools
from collections.abc import Iterator

import numpy as np

from mlf_jax.data.dataset import Split
from mlf_jax.errors import UserError, require_finite


def steps_per_epoch(split: Split, batch_size: int) -> int:
  """Number of full batches in an epoch; a last partial one is dropped.

  Raises:
    UserError: there is not one full batch.
  """
  if not 1 <= batch_size <= len(split):
    raise UserError(
      f'The batch size {batch_size} must be between 1 and {len(split)}, the'
      ' number of training samples.'
    )
  return len(split) // batch_size


def train_batch(
  split: Split,
  batch_size: int,
  seed: int,
  step: int,
  with_partners: bool = False,
  rows: slice = slice(None),
) -> dict[str, np.ndarray]:
  """Returns the batch of one training step, or some rows of it.

  Each epoch goes through the samples in an order of its own. Only the samples
  of the rows are read.

  Args:
    split: the training samples.
    batch_size: size of the global batch.
    seed: seed of the run, not negative.
    step: number of the training step, from 0 through all epochs.
    with_partners: adds the mix-up partner of each sample, the sample half a
      batch further on. Partners are chosen here, from the global batch, so that
      they do not depend on the number of devices.

  Returns:
    image: the samples, [batch_size, ...].
    label: int32 [batch_size].
    position: int32 [batch_size], the place in the batch, for `sample_keys`.
    partner_image, partner_label, partner_position: the same of the partner of
      each sample, only with partners.

  Raises:
    UserError: there is not one full batch.
  """
  epoch, place = divmod(step, steps_per_epoch(split, batch_size))
  order = _permutation(len(split), seed, epoch)
  members = order[place * batch_size : (place + 1) * batch_size]
  positions = np.arange(batch_size, dtype=np.int32)
  places = {'': positions[rows]}
  if with_partners:
    places['partner_'] = np.roll(positions, -(batch_size // 2))[rows]
  return {
    prefix + name: value
    for prefix, position in places.items()
    for name, value in (
      ('image', split.images[members[position]]),
      ('label', split.labels[members[position]]),
      ('position', position),
    )
  }


# Only the first step of an epoch pays for the permutation.
@functools.lru_cache(maxsize=1)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the order of the samples in an epoch.

  NumPy keeps the raw stream of Philox the same in every version, but not the
  permutations that its Generator makes of it: hence the sort of raw numbers.
  """
  philox = np.random.Philox(key=np.array([seed, epoch], np.uint64))
  return np.argsort(philox.random_raw(size), kind='stable')


def eval_batches(
  split: Split, batch_size: int, rows: slice = slice(None)
) -> Iterator[dict[str, np.ndarray]]:
  """Yields every sample exactly once, in order, or some rows of each batch.

  All batches have the same shape, so that the step compiles once and devices
  share it evenly: the last one is filled up with zeros.

  Args:
    split: training or test samples.
    batch_size: any positive size, even above the number of samples.
    rows: rows of each batch to yield; all by default.

  Yields:
    image: the samples, [rows, ...].
    label: int32 [rows].
    mask: float32 [rows], 1 for a sample and 0 for filling.

  Raises:
    UserError: the batch size is not positive, or a sample holds NaN or
      infinity, to which a network would answer as if it were empty.
  """
  if batch_size < 1:
    raise UserError(f'The batch size {batch_size} must be positive.')
  places = range(batch_size)[rows]
  for start in range(0, len(split), batch_size):
    members = slice(start + places.start, start + places.stop)
    images, labels = split.images[members], split.labels[members]
    require_finite('the images', images, first=members.start)
    missing = len(places) - len(labels)
    yield {
      'image': _fill(images, missing),
      'label': _fill(labels, missing),
      'mask': _fill(np.ones(len(labels), np.float32), missing),
    }


def _fill(array: np.ndarray, missing: int) -> np.ndarray:
  return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
