"""The equations of one timestep, forward and backward, shared by all paths."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


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


def advance(threshold, decay, u, x_t):
  """Membrane potential u[t] of one level, from u[t-1] and the current x[t].

  Both potentials are those before the reset.
  """
  # The selection stands between product and sum, so that a compiler that
  # contracts the two cannot change the result.
  return jnp.where(u > threshold, 0, decay * u) + x_t.astype(u.dtype)


def retreat(window, threshold, decay, u, g, d_next):
  """Backward pass of one level through one timestep, with the reset path.

  With g[t] = dL/do[t], h_k the surrogate derivative and d_k[t] = dL/du_k[t]:

      d_k[t] = h_k(u_k[t]) (g[t] - decay d_k[t+1] u_k[t])
               + decay d_k[t+1] (1 - o_k[t])

  Args:
    window: h_k as a function of the distance to the threshold.
    threshold: V_k.
    decay: decay of the membrane potential.
    u: u_k[t].
    g: g[t].
    d_next: d_k[t+1].

  Returns:
    d_k[t], and the contributions of this timestep to dL/dV_k and dL/d(decay).
  """
  h = window(u - threshold)
  quiet = u <= threshold
  direct = h * g
  through_reset = -d_next * decay * u * h
  d = direct + (d_next * decay * quiet.astype(u.dtype) + through_reset)
  through_spike = direct + through_reset
  return d, -through_spike, jnp.where(quiet, d_next * u, 0)


def total(arrays):
  """Sum of a few arrays, element by element."""
  return functools.reduce(jnp.add, arrays)


def num_fired(thresholds, u, dtype):
  """Number of levels whose membrane potential exceeds their threshold."""
  return total(
    (u_k > v).astype(dtype) for v, u_k in zip(thresholds, u, strict=True)
  )
