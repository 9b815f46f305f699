"""Losses by name, and the accuracy of a batch: pure functions."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mlf_jax.errors import UserError, require_axes
from mlf_jax.registry import Registry, instance_of


@dataclasses.dataclass(frozen=True)
class Loss:
  """A loss that `config.loss` can name.

  Attributes:
    function: maps logits and soft labels [batch, classes] to the loss of each
      sample [batch]. Soft labels are probabilities: one class per sample,
      mixed and smoothed as the configuration says.
    every_timestep: if True, `function` gets the logits of every timestep,
      [time, batch, classes]; if False, their mean over time,
      [batch, classes].
  """

  function: Callable[[Array, Array], Array]
  every_timestep: bool = False

  def __call__(
    self,
    logits: Float[Array, '*time batch classes'],
    soft_labels: Float[Array, 'batch classes'],
  ) -> Float[Array, 'batch']:
    """Loss of each sample; `UserError` unless it is one value per sample."""
    losses = self.function(logits, soft_labels)
    if getattr(losses, 'shape', None) != soft_labels.shape[:1]:
      raise UserError(
        f'the loss {getattr(self.function, "__name__", "")} must return one '
        f'value per sample, shape {soft_labels.shape[:1]}, for logits of shape '
        f'{logits.shape}; got {getattr(losses, "shape", losses)}'
      )
    return losses


LOSSES: Registry[Loss] = Registry('loss', instance_of(Loss))


def cross_entropy(
  logits: Float[Array, 'batch classes'],
  soft_labels: Float[Array, 'batch classes'],
) -> Float[Array, 'batch']:
  """Softmax cross-entropy of each sample, in nats, in the dtype of `logits`."""
  _require_alike(logits, soft_labels)
  return optax.softmax_cross_entropy(logits, soft_labels.astype(logits.dtype))


def temporal_efficient(
  logits: Float[Array, 'time batch classes'],
  soft_labels: Float[Array, 'batch classes'],
  weight: float = 0.05,
  target: float = 1.0,
) -> Float[Array, 'batch']:
  """TET loss of each sample: every timestep is trained to decide.

  Args:
    logits: of every timestep.
    soft_labels: probabilities of the classes.
    weight: share of the second term.
    target: what the second term draws all logits to.

  Returns:
    (1 - weight) * C + weight * S. C is the softmax cross-entropy, S the squared
    distance of the logits to `target`, averaged over classes; both are averaged
    over time.

  Source: Deng et al., "Temporal Efficient Training of Spiking Neural Network
  via Gradient Re-weighting", ICLR 2022.
  """
  require_axes('time batch classes', logits=logits)
  _require_alike(logits[0], soft_labels)
  labels = jnp.broadcast_to(soft_labels.astype(logits.dtype), logits.shape)
  entropy = optax.softmax_cross_entropy(logits, labels).mean(0)
  distance = jnp.square(logits - target).mean((0, 2))
  return (1 - weight) * entropy + weight * distance


LOSSES['cross_entropy'] = Loss(cross_entropy)
LOSSES['tet'] = Loss(temporal_efficient, every_timestep=True)
LOSSES.seal()


def is_correct(
  logits: Float[Array, 'batch classes'],
  soft_labels: Float[Array, 'batch classes'],
) -> Bool[Array, 'batch']:
  """True where the largest logit is that of the most probable class."""
  _require_alike(logits, soft_labels)
  return jnp.argmax(logits, -1) == jnp.argmax(soft_labels, -1)


def _require_alike(logits, soft_labels):
  require_axes('batch classes', logits=logits)
  if soft_labels.shape != logits.shape:
    raise UserError(
      f'soft_labels must have the shape of the logits, {logits.shape}, got '
      f'{soft_labels.shape}; jax.nn.one_hot makes them of class numbers'
    )
