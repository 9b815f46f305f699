"""Mixes pairs of normalised samples, and their labels: mix-up and cut-mix.

Each sample draws from a key of its own, see `mlf_jax.data.augmentation`.

Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018;
Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features", ICCV 2019.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mlf_jax.data.events.augmentation import map_samples, require_one_each
from mlf_jax.errors import UserError, require_axes

# Streams up to 5 are those of the augmentations.
_SHARE_STREAM = 6
_BOX_STREAM = 7
_CHOICE_STREAM = 8


def mix(
  keys: Key[Array, 'batch'],
  own: Float[Array, 'batch *time height width channel'],
  partner: Float[Array, 'batch *time height width channel'],
  mixup: float = 0.0,
  cutmix: float = 0.0,
) -> tuple[
  Float[Array, 'batch *time height width channel'], Float[Array, 'batch']
]:
  """Mixes each sample with its partner.

  Args:
    keys: one per sample, from `sample_keys`.
    own: normalised samples.
    partner: the partner of each sample.
    mixup: above 0, mix-up with shares from Beta(mixup, mixup).
    cutmix: above 0, cut-mix with shares from Beta(cutmix, cutmix). If both are
      above 0, each sample takes either with probability 1/2.

  Returns:
    The mixed samples, and the share of each own sample, in JAX's default
    precision.
  """
  choices = []
  if mixup:
    shares = mix_shares(keys, mixup)
    choices.append((mix_up(shares, own, partner), shares))
  if cutmix:
    choices.append(cut_mix(keys, mix_shares(keys, cutmix), own, partner))
  if len(choices) < 2:
    return choices[0]
  first = map_samples(jax.random.bernoulli, _CHOICE_STREAM, keys)

  def choose(one, other):
    lead = first.reshape((-1,) + (1,) * (one.ndim - 1))
    return jnp.where(lead, one, other)

  return jax.tree.map(choose, *choices)


def mix_shares(
  keys: Key[Array, 'batch'], alpha: float
) -> Float[Array, 'batch']:
  """Draws the share of each sample in its mixture, from Beta(alpha, alpha).

  The shares have JAX's default precision; their rounding depends on how the
  batch is divided among devices.

  Args:
    keys: one per sample, from `sample_keys`.
    alpha: positive; the smaller, the nearer the shares are to 0 or 1.
  """
  draw = lambda key: jax.random.beta(key, alpha, alpha)
  return map_samples(draw, _SHARE_STREAM, keys)


def mix_up(
  shares: Float[Array, 'batch'],
  own: Float[Array, 'batch *rest'],
  partner: Float[Array, 'batch *rest'],
) -> Float[Array, 'batch *rest']:
  """Returns `share * own + (1 - share) * partner`, sample by sample.

  Args:
    shares: from `mix_shares`.
    own: normalised samples, or soft labels.
    partner: the same of each sample's partner.
  """
  _require_pairs(own, partner)
  require_one_each(shares, own)
  share = shares.astype(own.dtype).reshape((-1,) + (1,) * (own.ndim - 1))
  return share * own + (1 - share) * partner


def cut_mix(
  keys: Key[Array, 'batch'],
  shares: Float[Array, 'batch'],
  own: Float[Array, 'batch *time height width channel'],
  partner: Float[Array, 'batch *time height width channel'],
) -> tuple[
  Float[Array, 'batch *time height width channel'], Float[Array, 'batch']
]:
  """Replaces a box of each sample by that of its partner.

  Args:
    keys: one per sample, from `sample_keys`.
    shares: from `mix_shares`. The sides of the box are those of the image times
      sqrt(1 - share), rounded down to even numbers of pixels. Its centre is any
      pixel; what reaches beyond the border is cut off.
    own: normalised samples.
    partner: the partner of each sample.

  Returns:
    The samples, and the share of pixels that each has kept.
  """
  require_axes('batch *time height width channel', own=own)
  _require_pairs(own, partner)

  def paste(key, share, own, partner):
    inside = []
    ratio = jnp.sqrt(1 - share)
    sides = own.shape[-3:-1]
    centres = jax.random.randint(key, (2,), 0, jnp.array(sides))
    for size, centre in zip(sides, centres, strict=True):
      half = jnp.floor(size * ratio).astype(jnp.int32) // 2
      place = jnp.arange(size)
      inside.append((place >= centre - half) & (place < centre + half))
    box = inside[0][:, None] & inside[1][None]
    kept = 1 - box.astype(share.dtype).mean()
    box = jnp.broadcast_to(box[..., None], own.shape)
    return jnp.where(box, partner, own), kept

  return map_samples(paste, _BOX_STREAM, keys, shares, own, partner)


def _require_pairs(own, partner):
  if own.shape != partner.shape:
    raise UserError(
      f'own has shape {own.shape} and partner {partner.shape}: they must agree'
    )
