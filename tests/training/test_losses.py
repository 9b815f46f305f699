"""Losses and accuracy against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.training.losses import (
  LOSSES,
  Loss,
  cross_entropy,
  is_correct,
  temporal_efficient,
)


def test_cross_entropy_of_soft_labels():
  probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
  labels = np.array([[1.0, 0.0, 0.0], [0.1, 0.3, 0.6]])
  np.testing.assert_allclose(
    cross_entropy(jnp.log(probabilities) + 3.0, jnp.asarray(labels)),
    -(labels * np.log(probabilities)).sum(1),
    rtol=1e-5,
  )


def test_temporal_efficient_loss_of_every_timestep():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 3, 5))
  labels = rng.dirichlet(np.ones(5), size=3)
  softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  entropies = -labels * np.log(softmax)
  distances = np.square(logits - 2.0)
  expected = 0.7 * entropies.sum(-1).mean(0) + 0.3 * distances.mean((0, 2))
  logits, labels = jnp.asarray(logits), jnp.asarray(labels)
  np.testing.assert_allclose(
    temporal_efficient(logits, labels, 0.3, 2.0), expected, rtol=1e-5
  )
  # Without the second term and with one timestep, it is the cross-entropy.
  np.testing.assert_allclose(
    temporal_efficient(logits[:1], labels, 0.0),
    cross_entropy(logits[0], labels),
    rtol=1e-6,
  )
  assert LOSSES['tet'](logits, labels).shape == (3,)
  with pytest.raises(UserError, match=r'\[time, batch, classes\]'):
    temporal_efficient(logits[0], labels)


def test_correct_is_the_most_probable_class():
  """In a mixture of two classes, the one with the larger share."""
  logits = jnp.array([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0], [0.0, 1.0, 3.0]])
  labels = jnp.array([[0.0, 1.0, 0.0], [0.4, 0.0, 0.6], [0.3, 0.0, 0.7]])
  assert is_correct(logits, labels).tolist() == [True, False, True]


@pytest.mark.parametrize('shape', [(2,), (2, 1), (3, 3)])
def test_mistakes(shape):
  for function in (cross_entropy, is_correct):
    with pytest.raises(UserError, match='soft_labels must have the shape of'):
      function(jnp.zeros((2, 3)), jnp.zeros(shape))


@pytest.mark.parametrize(
  'function', [lambda z, y: z.mean(0), lambda z, y: z.mean(), lambda z, y: None]
)
def test_a_loss_must_return_one_value_per_sample(function):
  with pytest.raises(UserError, match=r'one value per sample, shape \(2,\)'):
    Loss(function, every_timestep=True)(jnp.zeros((4, 2, 3)), jnp.zeros((2, 3)))
