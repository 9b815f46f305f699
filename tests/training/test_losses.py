"""Losses and metrics against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import objectives


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_cross_entropy(smoothing):
  logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])) + 3.0
  labels = jnp.array([0, 1])
  targets = np.full((2, 3), smoothing / 3)
  targets[[0, 1], [0, 1]] += 1 - smoothing
  probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
  np.testing.assert_allclose(
    objectives.cross_entropy(logits, labels, smoothing),
    -(targets * np.log(probabilities)).sum(1),
    rtol=1e-5,
  )


def test_is_correct():
  logits = jnp.array([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
  np.testing.assert_array_equal(
    objectives.is_correct(logits, jnp.array([1, 2])), [True, False]
  )


def test_mistakes():
  with pytest.raises(AssertionError):
    objectives.cross_entropy(jnp.zeros((2, 3)), jnp.zeros((3,), jnp.int32))
  with pytest.raises(AssertionError):
    objectives.cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 1), jnp.int32))
  with pytest.raises(AssertionError):
    objectives.is_correct(jnp.zeros((4, 3)), jnp.zeros((1,), jnp.int32))
  with pytest.raises(AssertionError):
    objectives.is_correct(jnp.zeros((3,)), jnp.zeros((3,), jnp.int32))
