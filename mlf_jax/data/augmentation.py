"""Augmentation on the device, inside the jitted training step.

Each sample draws from a key of its own, made of the seed, the step and the
sample's place in the global batch: draws do not depend on how the batch is
divided among devices. `AUGMENTATIONS` declares each augmentation with its field
of `config.augment`; to add one, register it there.

Order in the method's paper (Feng et al., IJCAI 2022): flip and crop the raw
image, whose padding is then black, and normalise last.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from mlf_jax.data import mixing
from mlf_jax.data.events import augmentation as events
from mlf_jax.errors import UserError, require_axes
from mlf_jax.fields import Field
from mlf_jax.registry import Registry, instance_of

# Augmentations get the same keys and fold in their own stream to draw
# independently; the others are in `events.augmentation` and `mixing`.
_FLIP_STREAM = 0
_CROP_STREAM = 1
_CUTOUT_STREAM = 3
_IMAGES = 'batch *time height width channel'


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """An augmentation and the setting that turns it on.

  Attributes:
    apply: (keys, images, amount) -> images, on raw samples of a batch; None for
      mix-up and cut-mix, which are applied to pairs of normalised samples.
    image_field: the setting for data sets of static images, None if it is not
      meant for them. It is off at 0 or False.
    frame_field: the same for frames of event cameras.
  """

  apply: Callable | None
  image_field: Field | None = None
  frame_field: Field | None = None


# In the order in which they are applied. The method's paper augments static
# images by flip and crop, and does not augment event data.
AUGMENTATIONS: Registry[Augmentation] = Registry(
  'augmentation', instance_of(Augmentation)
)


def augmentation_fields(is_frames: bool) -> tuple[Field, ...]:
  """Fields of `config.augment` for static images, or for frames."""
  fields = (
    entry.frame_field if is_frames else entry.image_field
    for entry in AUGMENTATIONS.values()
  )
  return tuple(field for field in fields if field is not None)


def sample_keys(
  seed: int | Int[Array, ''],
  step: int | Int[Array, ''],
  position: Int[Array, 'batch'],
) -> Key[Array, 'batch']:
  """Returns the key of each sample of a batch.

  Args:
    seed: seed of the run.
    step: number of the training step.
    position: place of each sample in the global batch.
  """
  require_axes('batch', position=position)
  if not jnp.issubdtype(position.dtype, jnp.integer):
    raise UserError(f'position must be whole numbers, got {position.dtype}')
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, position)


def random_flip(
  keys: Key[Array, 'batch'],
  images: Shaped[Array, 'batch *time height width channel'],
) -> Shaped[Array, 'batch *time height width channel']:
  """Mirrors the columns of each sample with probability 1/2.

  Args:
    keys: one per sample, from `sample_keys`.
    images: of any dtype. All timesteps of a sample are treated alike.

  Returns:
    The images, same shape and dtype.
  """
  require_axes(_IMAGES, images=images)

  def flip_sample(key, image):
    return jnp.where(jax.random.bernoulli(key), jnp.flip(image, axis=-2), image)

  return events.map_samples(flip_sample, _FLIP_STREAM, keys, images)


def random_crop(
  keys: Key[Array, 'batch'],
  images: Shaped[Array, 'batch *time height width channel'],
  padding: int,
) -> Shaped[Array, 'batch *time height width channel']:
  """Pads with zeros on all sides, then crops to the original size at random.

  Args:
    keys: one per sample, from `sample_keys`.
    images: of any dtype. All timesteps of a sample are treated alike.
    padding: pixels on each side. Each of the (2 padding + 1)^2 places of the
      crop is equally likely.

  Returns:
    The images, same shape and dtype.
  """
  require_axes(_IMAGES, images=images)

  def crop_sample(key, image):
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    leading, sides = image.ndim - 3, (padding, padding)
    padded = jnp.pad(image, [*[(0, 0)] * leading, sides, sides, (0, 0)])
    start = (*[0] * leading, top, left, 0)
    return jax.lax.dynamic_slice(padded, start, image.shape)

  return events.map_samples(crop_sample, _CROP_STREAM, keys, images)


def random_cutout(
  keys: Key[Array, 'batch'],
  images: Shaped[Array, 'batch *time height width channel'],
  side: int,
) -> Shaped[Array, 'batch *time height width channel']:
  """Sets a square of each sample to zero, the same at all timesteps.

  Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural
  Networks with Cutout", arXiv 1708.04552, 2017; there the square may reach
  beyond the border.

  Args:
    keys: one per sample, from `sample_keys`.
    images: of any dtype.
    side: side of the square in pixels, at most that of the images. Each place
      at which the square lies inside is equally likely.

  Returns:
    The images, same shape and dtype.
  """
  require_axes(_IMAGES, images=images)
  height, width = images.shape[-3:-1]

  def cut_sample(key, sample):
    places = jnp.array([height, width]) - side + 1
    top, left = jax.random.randint(key, (2,), 0, places)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (row >= top) & (row < top + side)
    inside &= (column >= left) & (column < left + side)
    inside = jnp.broadcast_to(inside[..., None], sample.shape)
    return jnp.where(inside, jnp.zeros_like(sample), sample)

  return events.map_samples(cut_sample, _CUTOUT_STREAM, keys, images)


_FLIP = 'mirror the columns of each sample with probability 1/2'
AUGMENTATIONS['flip'] = Augmentation(
  lambda keys, images, _: random_flip(keys, images),
  image_field=Field('flip', True, _FLIP),
  frame_field=Field('flip', False, _FLIP),
)
AUGMENTATIONS['crop_padding'] = Augmentation(
  random_crop,
  image_field=Field(
    'crop_padding',
    4,
    'pixels of black padding before a random crop to the original size',
    low=0,
  ),
)
AUGMENTATIONS['translation'] = Augmentation(
  random_crop,
  frame_field=Field(
    'translation', 0, 'greatest shift in pixels, along each side', low=0
  ),
)
AUGMENTATIONS['rotation'] = Augmentation(
  events.random_rotation,
  frame_field=Field(
    'rotation', 0.0, 'greatest angle in degrees, to both sides', low=0, high=180
  ),
)
AUGMENTATIONS['shear'] = Augmentation(
  events.random_shear,
  frame_field=Field(
    'shear', 0.0, 'greatest angle in degrees, to both sides', low=0, below=90
  ),
)
AUGMENTATIONS['cutout'] = Augmentation(
  random_cutout,
  image_field=Field('cutout', 0, 'side in pixels of a black square', low=0),
  frame_field=Field(
    'cutout', 0, 'side in pixels of a square without events', low=0
  ),
)
AUGMENTATIONS['event_drop'] = Augmentation(
  events.drop_events,
  frame_field=Field(
    'event_drop', 0.0, 'probability to drop each event', low=0, below=1
  ),
)
AUGMENTATIONS['time_shift'] = Augmentation(
  events.random_time_shift,
  frame_field=Field(
    'time_shift',
    0,
    'greatest shift in timesteps, to both sides; below model.time_steps',
    low=0,
  ),
)


def _mixture(name, effect):
  """Entry of an augmentation of pairs of samples, of either kind."""
  text = f'above 0, {effect}, with shares from Beta({name}, {name})'
  field = Field(name, 0.0, text, low=0)
  return Augmentation(None, field, field)


AUGMENTATIONS['mixup'] = _mixture('mixup', 'pairs of samples are added')
AUGMENTATIONS['cutmix'] = _mixture(
  'cutmix', 'a box of each sample is taken from another one'
)
AUGMENTATIONS.seal()


def needs_partners(settings: Mapping[str, object]) -> bool:
  """True if samples are mixed in pairs, so that batches need partners.

  Args:
    settings: amounts by name of the augmentation: `config.augment`.
  """
  return any(_mixtures(settings).values())


def _mixtures(settings):
  """Amounts of mix-up and cut-mix."""
  return {name: settings.get(name, 0.0) for name in ('mixup', 'cutmix')}


def augment_batch(
  settings: Mapping[str, object],
  seed: int | Int[Array, ''],
  step: int | Int[Array, ''],
  batch: Mapping[str, Shaped[Array, 'batch ...']],
  normalize: Callable[[Array], Array],
  num_classes: int,
) -> tuple[Float[Array, 'batch ...'], Float[Array, 'batch class']]:
  """Applies the configured augmentations to a batch.

  An augmentation that is off leaves no trace in the program.

  Args:
    settings: amounts by name of the augmentation: `config.augment`. A name that
      is missing is off.
    seed: seed of the run.
    step: number of the training step.
    batch: from `train_batch`, with partners if `needs_partners(settings)`.
    normalize: raw samples to the network's input, after augmentation.
    num_classes: number of classes.

  Returns:
    Inputs of the network, and soft labels: the probability of each class, in
    JAX's default precision. Mix-up and cut-mix mix both.
  """

  def augmented(images, position):
    keys = sample_keys(seed, step, position)
    for name, augmentation in AUGMENTATIONS.items():
      amount = settings.get(name)
      if amount and augmentation.apply is not None:
        images = augmentation.apply(keys, images, amount)
    return normalize(images)

  inputs = augmented(batch['image'], batch['position'])
  labels = jax.nn.one_hot(batch['label'], num_classes)
  if not needs_partners(settings):
    return inputs, labels
  # A partner draws from its own key, as it does as a sample of its own.
  partners = augmented(batch['partner_image'], batch['partner_position'])
  partner_labels = jax.nn.one_hot(batch['partner_label'], num_classes)
  keys = sample_keys(seed, step, batch['position'])
  inputs, shares = mixing.mix(keys, inputs, partners, **_mixtures(settings))
  return inputs, mixing.mix_up(shares, labels, partner_labels)
