"""Initialisers of the published networks."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# Not truncated, unlike `nn.initializers.he_normal`.
he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


def uniform_fan_in(fan_in: int) -> Callable:
  """Initialiser that draws uniformly from +-1 / sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
