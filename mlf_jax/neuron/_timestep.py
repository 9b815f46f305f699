"""The equations of one timestep, forward and backward, shared by all paths."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax.neuron.surrogate import spike


class Affine(NamedTuple):
  """Coefficients of a normalisation per channel: (x - mean) * scale + bias.

  `run` applies them itself, so that the current is never written to memory.
  """

  mean: Float[Array, 'channel']
  scale: Float[Array, 'channel']
  bias: Float[Array, 'channel']

  def __call__(
    self, x: Float[Array, '*batch channel']
  ) -> Float[Array, '*batch channel']:
    """Applies the coefficients to `x`, in the dtype of the coefficients."""
    lead = tuple(range(x.ndim - self.mean.ndim))
    mean, scale, bias = (jnp.expand_dims(a, lead) for a in self)
    return (x.astype(mean.dtype) - mean) * scale + bias


class MultiLevelFiring(NamedTuple):
  """MLF units after a timestep: what their reset leaves, and their spikes.

  The equations of other units have the same form. `advance` and `retreat` take
  any of them as `unit`.
  """

  width: float
  surrogate: str

  def most_spikes(self, parameters):
    """Most spikes that a unit emits at one timestep."""
    thresholds, _ = parameters
    return len(thresholds)

  def __call__(self, parameters, u):
    """Fires and resets.

    Args:
      parameters: thresholds, one per level, and decay.
      u: membrane potential u_k[t] of each level, before the reset.

    Returns:
      decay * u_k[t] * (1 - o_k[t]) of each level, to which the current of the
      next timestep is added, and the spikes o[t].
    """
    thresholds, decay = parameters
    left, fired = [], []
    for v, u_k in zip(thresholds, u, strict=True):
      fired.append(spike(u_k, v, self.width, self.surrogate))
      # The factor 1 - o comes last: it is 0 or 1, so the product is exact and a
      # compiler that contracts product and sum cannot change the result.
      left.append(decay * u_k * (1 - fired[-1]))
    return left, total(fired)


def advance(unit, parameters, u, x_t):
  """Membrane potentials u_k[t] from u_k[t-1] and the current x[t].

  Both potentials are those before the reset.
  """
  left, _ = unit(parameters, u)
  return [u_k + x_t.astype(u_k.dtype) for u_k in left]


def retreat(unit, parameters, u, g, d_next):
  """Backward pass of one timestep, with the reset path.

  With g[t] = dL/do[t], h_k the surrogate derivative and d_k[t] = dL/du_k[t],
  this is for MLF units:

      d_k[t] = h_k(u_k[t]) (g[t] - decay d_k[t+1] u_k[t])
               + decay d_k[t+1] (1 - o_k[t])

  Args:
    unit: such as `MultiLevelFiring`.
    parameters: of the unit.
    u: u_k[t] of each level.
    g: g[t], in the dtype of `u`.
    d_next: d_k[t+1] of each level.

  Returns:
    d_k[t] of each level, and the contributions of each neuron at this timestep
    to the gradient of `parameters`.
  """
  # A parameter of all neurons would have its gradient summed at each timestep.
  spread = jax.tree.map(lambda p: jnp.broadcast_to(p, g.shape), parameters)
  d_parameters, d = jax.vjp(unit, spread, u)[1]((d_next, g))
  return d, d_parameters


def total(arrays):
  """Sum of a few arrays, element by element."""
  return functools.reduce(jnp.add, arrays)
