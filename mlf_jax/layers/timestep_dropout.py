"""Dropout with a mask per timestep, the same on any number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class TimestepDropout(nn.Module):
  """Dropout whose mask is drawn for each timestep, sample and feature.

  With the batch divided over a mesh axis, every device draws the mask of the
  whole batch and keeps its own part, so that N devices give the numbers of one.

  Attributes:
    rate: probability of an entry to be dropped.
    time_steps: timesteps folded into batch.
    axis_name: mesh or `pmap` axis over which the batch is divided.
  """

  rate: float
  time_steps: int
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'folded feature'], deterministic: bool
  ) -> Float[Array, 'folded feature']:
    """Drops entries of `x` and scales the rest by 1 / (1 - rate)."""
    if deterministic or self.rate == 0:
      return x
    batch = x.shape[0] // self.time_steps
    shards = 1
    if self.axis_name is not None and not self.is_initializing():
      shards = jax.lax.axis_size(self.axis_name)
    keep = jax.random.bernoulli(
      self.make_rng('dropout'),
      1 - self.rate,
      (self.time_steps, shards * batch, *x.shape[1:]),
    )
    if shards > 1:
      start = jax.lax.axis_index(self.axis_name) * batch
      keep = jax.lax.dynamic_slice_in_dim(keep, start, batch, axis=1)
    return jnp.where(keep.reshape(x.shape), x / (1 - self.rate), 0)
