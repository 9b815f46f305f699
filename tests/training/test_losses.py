"""Losses and accuracy against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.training.losses import Loss, cross_entropy, is_correct


def test_cross_entropy_of_soft_labels():
  probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
  labels = np.array([[1.0, 0.0, 0.0], [0.1, 0.3, 0.6]])
  np.testing.assert_allclose(
    cross_entropy(jnp.log(probabilities) + 3.0, jnp.asarray(labels)),
    -(labels * np.log(probabilities)).sum(1),
    rtol=1e-5,
  )


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
