"""What a configuration's augmentation makes of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Int, Shaped

from mlf_jax import data, objectives

# In the order in which raw samples are augmented: the fields of
# `config.augment`, and what each of them stands for.
_AUGMENTATIONS = {
  'flip': lambda keys, images, _: data.random_flip(keys, images),
  'crop_padding': data.random_crop,
  'translation': data.random_crop,
  'rotation': data.random_rotation,
  'cutout': data.random_cutout,
  'event_drop': data.drop_events,
  'time_shift': data.random_time_shift,
}


class Samples(NamedTuple):
  """Samples as the network is trained on them.

  Attributes:
    inputs: of the network.
    label: class of each sample.
    partner_label: class of the sample that each is mixed with; None unless
      they are mixed.
    share: of `label` in the mixture; None likewise.
  """

  inputs: Float[Array, 'batch ...']
  label: Int[Array, 'batch']
  partner_label: Int[Array, 'batch'] | None = None
  share: Float[Array, 'batch'] | None = None

  def judge(
    self, logits: Float[Array, 'batch classes'], label_smoothing: float
  ) -> tuple[Float[Array, 'batch'], Bool[Array, 'batch']]:
    """Loss of each sample, and whether it is classified correctly.

    Of a mixture the loss is the mixture of the two losses, and correct is the
    class with the larger share.
    """

    def losses(label):
      return objectives.cross_entropy(logits, label, label_smoothing)

    if self.share is None:
      label = self.label
      return losses(label), objectives.is_correct(logits, label)
    larger = jnp.where(self.share >= 0.5, self.label, self.partner_label)
    return (
      data.mix_up(self.share, losses(self.label), losses(self.partner_label)),
      objectives.is_correct(logits, larger),
    )


def mixes(config: ml_collections.ConfigDict) -> bool:
  """Whether samples are mixed in pairs, so that batches need partners."""
  return config.augment.get('mixup', 0.0) > 0


def train_samples(
  config: ml_collections.ConfigDict,
  normalize: Callable[[Array], Array],
  step: Int[Array, ''],
  batch: dict[str, Shaped[Array, 'batch ...']],
) -> Samples:
  """The samples of a training step.

  An augmentation that is off, at 0, leaves no trace in the step.

  Args:
    config: the configuration.
    normalize: raw samples to the network's input, after augmentation.
    step: number of the training step.
    batch: from `data.train_batch`, with partners if `mixes(config)`.
  """

  def prepared(images, position):
    keys = data.sample_keys(config.seed, step, position)
    for field, augment in _AUGMENTATIONS.items():
      # Not every data set has every field.
      if amount := config.augment.get(field):
        images = augment(keys, images, amount)
    return normalize(images)

  inputs = prepared(batch['image'], batch['position'])
  if not mixes(config):
    return Samples(inputs, batch['label'])
  # A partner draws from its own key: it is what it is as a sample of its own.
  partner = prepared(batch['partner_image'], batch['partner_position'])
  keys = data.sample_keys(config.seed, step, batch['position'])
  share = data.mix_shares(keys, config.augment.mixup)
  return Samples(
    data.mix_up(share, inputs, partner),
    batch['label'],
    batch['partner_label'],
    share,
  )
