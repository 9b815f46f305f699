"""Data sets, batches and augmentation."""

from mlf_jax.data.augment import (
  normalize,
  random_crop,
  random_flip,
  sample_keys,
)
from mlf_jax.data.dataset import Dataset
from mlf_jax.data.event_augment import (
  drop_events,
  mix_shares,
  mix_up,
  random_cutout,
  random_rotation,
  random_time_shift,
)
from mlf_jax.data.pipeline import eval_batches, steps_per_epoch, train_batch
from mlf_jax.data.sources import (
  default_frames,
  event_names,
  load,
  names,
  sample_shape,
)

__all__ = [
  'Dataset',
  'default_frames',
  'drop_events',
  'eval_batches',
  'event_names',
  'load',
  'mix_shares',
  'mix_up',
  'names',
  'normalize',
  'random_crop',
  'random_cutout',
  'random_flip',
  'random_rotation',
  'random_time_shift',
  'sample_keys',
  'sample_shape',
  'steps_per_epoch',
  'train_batch',
]
