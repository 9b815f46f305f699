"""Data sets, batches and augmentation."""

from mlf_jax.data.augment import (
  normalize,
  random_crop,
  random_flip,
  sample_keys,
)
from mlf_jax.data.dataset import Dataset
from mlf_jax.data.pipeline import eval_batches, steps_per_epoch, train_batch
from mlf_jax.data.sources import load, names

__all__ = [
  'Dataset',
  'eval_batches',
  'load',
  'names',
  'normalize',
  'random_crop',
  'random_flip',
  'sample_keys',
  'steps_per_epoch',
  'train_batch',
]
