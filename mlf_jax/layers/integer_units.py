"""Units that emit whole multiples of a threshold and subtract them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax.layers.integrating_unit import (
  IntegratingUnit,
  decay_setting,
  filled,
  first_decay_setting,
  logit,
  setting,
)
from mlf_jax.layers.spiking_units import UNITS


@jax.custom_vjp
def _multiples(u, most):
  """Number of whole units in `u`, from 0 to `most`, rounded to the nearest.

  In the backward pass the derivative is 1 from 0 to `most`, 0 elsewhere.
  """
  return _multiples_fwd(u, most)[0]


def _multiples_fwd(u, most):
  # A tie is rounded down: every spike here needs more than its threshold.
  return jnp.clip(jnp.ceil(u - 0.5), 0, most), (u, most)


def _multiples_bwd(residuals, g):
  u, most = residuals
  inside = (u >= 0) & (u <= most)
  return g * inside.astype(g.dtype), None


_multiples.defvjp(_multiples_fwd, _multiples_bwd)


def _rounded(product):
  """A product that no compiler contracts with a sum that follows it.

  Contraction, which leaves out the rounding of the product, could differ
  between the fast path and `step`. A selection between the two prevents it.
  """
  return jnp.where(product == product, product, jnp.nan)


class _SoftResetUnit(IntegratingUnit):
  """Base of units that subtract what they emit."""

  def output_range(self, input_range=None):
    """From no spike to all of them."""
    del input_range
    return 0, self.levels

  def fire_and_reset(self, values, u):
    """Emits multiples of the threshold and subtracts them."""
    (threshold, decay), (u,) = values, u
    spikes = _multiples(u / threshold + self._offset, self.levels)
    return [_rounded(decay * (u - threshold * spikes))], spikes

  def fired_and_in_window(self, values, u):
    """One spike or more; where the derivative of the spikes is not 0."""
    multiples = u / values[0] + self._offset
    return multiples > 0.5, (multiples >= 0) & (multiples <= self.levels)


@UNITS.register('integer_lif')
@dataclasses.dataclass(frozen=True)
class IntegerLIF(_SoftResetUnit):
  """Integer LIF unit (I-LIF): emits the rounded membrane potential.

      u[t] = decay * (u[t-1] - o[t-1]) + x[t]
      o[t] = u[t] rounded to the nearest of 0, 1 ... D

  A tie is rounded down (the paper's code rounds it to the even number). In the
  backward pass the derivative of o is 1 for 0 <= u <= D. A synapse may get the
  spikes as D timesteps of 0 and 1: see `unit_spikes`.

  Source: Luo et al., "Integer-Valued Training and Spike-Driven Inference
  Spiking Neural Network for High-Performance and Energy-Efficient Object
  Detection", ECCV 2024.
  """

  levels: int = setting(4, 'most spikes per timestep D', low=1)
  decay: float = decay_setting(0.25)

  threshold = 1.0
  _offset = 0.0

  def unit_spikes(self, spikes):
    """Expands whole numbers of spikes into timesteps of 0 and 1.

    The sum over the D timesteps of a convolution of them is the convolution of
    `spikes`. They are what an integrate-and-fire unit emits that starts from u,
    fires above 1/2 and subtracts 1 at each of D timesteps.

    Args:
      spikes: output of the unit, [time, ...].

    Returns:
      [time * D, ...], in the dtype of `spikes`.
    """
    ranks = jnp.arange(self.levels, dtype=spikes.dtype)
    ranks = ranks.reshape((1, -1) + (1,) * (spikes.ndim - 1))
    first = spikes[:, None] > ranks
    return first.astype(spikes.dtype).reshape(-1, *spikes.shape[1:])


@UNITS.register('lm_ht')
@dataclasses.dataclass(frozen=True)
class MultiHierarchical(_SoftResetUnit):
  """Unit with equidistant levels V, 2 V ... L V, which learns V: LM-HT.

      u[t] = decay * (u[t-1] - V * o[t-1]) + x[t]
      o[t] = number of levels below u[t]

  A layer learns one V, as a logarithm, and one decay, as a logit. The unit
  emits the number of levels where the paper emits this number times V: the next
  weights absorb the factor. In the backward pass the derivative of V * o is 1
  for V / 2 <= u <= (L + 1/2) V. The matrix by which the paper mixes the
  timesteps of the current is left out: it needs the whole recording at once.

  Source: Hao et al., "LM-HT SNN: Enhancing the Performance of SNN to ANN
  Counterpart through Learnable Multi-hierarchical Threshold Model", NeurIPS
  2024.
  """

  levels: int = setting(4, 'number of levels L', low=1)
  threshold: float = setting(
    1.0,
    'distance of the levels at the start of training; it scales the '
    'normalisation',
    above=0,
  )
  decay: float = first_decay_setting(0.5)

  _offset = -0.5

  def learned(self, shape):
    """The logarithm of V and the logit of the decay."""
    del shape
    return {
      'log_threshold': filled(np.log(self.threshold)),
      'decay_logit': filled(logit(self.decay)),
    }

  def values(self, parameters):
    """Distance of the levels, and decay."""
    return (
      jnp.exp(parameters['log_threshold']),
      jax.nn.sigmoid(parameters['decay_logit']),
    )
