"""Data sets, batches and augmentation.

    dataset = data.load('digits')
    dataset = data.from_arrays(images, labels, test_images, test_labels)
    batch = data.train_batch(dataset.train, batch_size=64, seed=0, step=0)

Recordings of event cameras are in `mlf_jax.data.events`.
"""

from mlf_jax.data.augmentation import (
  AUGMENTATIONS,
  Augmentation,
  augment_batch,
  augmentation_fields,
  needs_partners,
  random_crop,
  random_flip,
  sample_keys,
)
from mlf_jax.data.batches import eval_batches, steps_per_epoch, train_batch
from mlf_jax.data.chosen_rows import ChosenRows
from mlf_jax.data.dataset import Dataset, LoadOptions, Split, from_arrays
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.registry import DATASETS, DatasetEntry, load

__all__ = [
  'AUGMENTATIONS',
  'DATASETS',
  'Augmentation',
  'ChosenRows',
  'Dataset',
  'DatasetEntry',
  'FrameSpec',
  'LoadOptions',
  'Split',
  'augment_batch',
  'augmentation_fields',
  'eval_batches',
  'from_arrays',
  'load',
  'needs_partners',
  'random_crop',
  'random_flip',
  'sample_keys',
  'steps_per_epoch',
  'train_batch',
]
