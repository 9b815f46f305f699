"""Losses and metrics of a batch, pure functions."""

import chex
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(
  logits: Float[Array, 'batch classes'],
  labels: Int[Array, 'batch'],
  label_smoothing: float = 0.0,
) -> Float[Array, 'batch']:
  """Softmax cross-entropy of each sample.

  Args:
    logits: [batch, classes], floating.
    labels: [batch], the class of each sample.
    label_smoothing: share of the probability that is spread evenly over all
      classes, in [0, 1).

  Returns:
    [batch], in nats, in the dtype of `logits`.
  """
  chex.assert_rank([logits, labels], [2, 1])
  chex.assert_equal_shape_prefix([logits, labels], 1)
  chex.assert_type([logits, labels], [float, int])
  targets = jnp.equal(labels[:, None], jnp.arange(logits.shape[1])[None])
  targets = optax.smooth_labels(targets.astype(logits.dtype), label_smoothing)
  return optax.softmax_cross_entropy(logits, targets)


def is_correct(
  logits: Float[Array, 'batch classes'], labels: Int[Array, 'batch']
) -> Bool[Array, 'batch']:
  """Whether the largest logit of each sample is that of its class."""
  chex.assert_rank([logits, labels], [2, 1])
  chex.assert_equal_shape_prefix([logits, labels], 1)
  chex.assert_type([logits, labels], [float, int])
  return jnp.argmax(logits, -1) == labels
