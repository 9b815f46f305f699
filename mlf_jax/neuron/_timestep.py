"""The equations of one timestep, forward and backward, shared by all paths."""

import functools
from typing import NamedTuple, Protocol

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


class Equations(Protocol):
  """A timestep of a unit that adds the current to what the reset has left.

  Hashable: equal equations are compiled once.
  """

  def fire_and_reset(self, values, u):
    """Spikes of a timestep, and what is left for the next; differentiable.

    Args:
      values: of the unit, a tree of scalars, or of arrays in the shape of a
        level.
      u: membrane potential u_k[t] of each level, before the reset.

    Returns:
      What is left of each level, to which the current x[t + 1] is added to make
      u_k[t + 1], and the spikes o[t].
    """

  def output_range(self):
    """Least and greatest whole number of spikes; None if they are not whole."""


class MultiLevelFiring(NamedTuple):
  """Equations of MLF units; their values are thresholds and decay."""

  num_levels: int
  width: float
  surrogate: str

  def fire_and_reset(self, values, u):
    """Leaves decay * u_k[t] * (1 - o_k[t])."""
    thresholds, decay = values
    left, fired = [], []
    for v, u_k in zip(thresholds, u, strict=True):
      fired.append(spike(u_k, v, self.width, self.surrogate))
      # The factor 1 - o comes last: it is 0 or 1, so the product is exact and a
      # compiler that contracts product and sum cannot change the result.
      left.append(decay * u_k * (1 - fired[-1]))
    return left, total(fired)

  def output_range(self):
    """From no level fired to all of them."""
    return 0, self.num_levels


def advance(unit, values, u, x_t):
  """Membrane potentials u_k[t] from u_k[t-1] and the current x[t].

  Both potentials are those before the reset.
  """
  left, _ = unit.fire_and_reset(values, u)
  return [u_k + x_t.astype(u_k.dtype) for u_k in left]


def retreat(unit, values, u, g, d_next):
  """Backward pass of one timestep, with the reset path.

  With g[t] = dL/do[t], h_k the surrogate derivative and d_k[t] = dL/du_k[t],
  this is for MLF units:

      d_k[t] = h_k(u_k[t]) (g[t] - decay d_k[t+1] u_k[t])
               + decay d_k[t+1] (1 - o_k[t])

  Args:
    unit: the equations.
    values: of the unit.
    u: u_k[t] of each level.
    g: g[t], in the dtype of `u`.
    d_next: d_k[t+1] of each level.

  Returns:
    d_k[t] of each level, and the contributions of each neuron at this timestep
    to the gradient of `values`.
  """
  # A value of all neurons would have its gradient summed at each timestep.
  values = jax.tree.map(lambda v: jnp.broadcast_to(v, g.shape), values)
  d_values, d = jax.vjp(unit.fire_and_reset, values, u)[1]((d_next, g))
  return d, d_values


def total(arrays):
  """Sum of a few arrays, element by element."""
  return functools.reduce(jnp.add, arrays)
