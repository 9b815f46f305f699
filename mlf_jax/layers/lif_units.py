"""Units with one threshold: LIF, parametric LIF, ternary spikes."""

import dataclasses

import jax
import jax.numpy as jnp

from mlf_jax.layers.integrating_unit import (
  IntegratingUnit,
  above_and_near,
  decay_setting,
  filled,
  first_decay_setting,
  logit,
  setting,
  surrogate_setting,
  threshold_setting,
  width_setting,
)
from mlf_jax.layers.spiking_units import UNITS
from mlf_jax.neuron.surrogate import spike


def _left_after(fired, kept, reset):
  """`reset` where a unit has fired, else `kept`; differentiable in all three.

  The factors 0 and 1 come last, so that the products are exact and a compiler
  that contracts product and sum cannot change the result.
  """
  return (1 - fired) * kept + fired * reset


class _BinaryUnit(IntegratingUnit):
  """Base of units that fire once or not at all."""

  def output_range(self, input_range=None):
    """No spike or one."""
    del input_range
    return 0, 1

  def fired_and_in_window(self, values, u):
    """Above the threshold; within half a width of it."""
    return above_and_near(u - values[0], self.width)


@UNITS.register('lif')
@dataclasses.dataclass(frozen=True)
class LIF(_BinaryUnit):
  """Leaky integrate-and-fire unit with a soft or a hard reset.

      soft: u[t] = decay * (u[t-1] - V * o[t-1]) + x[t]
      hard: u[t] = decay * u[t-1] * (1 - o[t-1]) + x[t]

  With a decay of 1 it is the integrate-and-fire unit (IF). With the hard reset
  it equals MLF with one level.

  Source: Eshraghian et al., "Training Spiking Neural Networks Using Lessons
  From Deep Learning", Proceedings of the IEEE, 2023.
  """

  threshold: float = threshold_setting(0.6)
  decay: float = decay_setting(0.25)
  reset: str = setting(
    'soft',
    'what a spike does to the membrane potential: subtract the threshold '
    '(soft) or set it to 0 (hard)',
    choices=('soft', 'hard'),
  )
  width: float = width_setting()
  surrogate: str = surrogate_setting()

  def fire_and_reset(self, values, u):
    """Fires above the threshold; subtracts it, or resets to 0."""
    (threshold, decay), (u,) = values, u
    fired = spike(u, threshold, self.width, self.surrogate)
    if self.reset == 'hard':
      return [decay * u * (1 - fired)], fired
    return [_left_after(fired, decay * u, decay * (u - threshold))], fired


@UNITS.register('plif')
@dataclasses.dataclass(frozen=True)
class ParametricLIF(_BinaryUnit):
  """LIF unit that learns its decay, one number per layer: PLIF.

      u[t] = decay * u[t-1] * (1 - o[t-1]) + (1 - decay) * x[t]

  The learned number is the logit of 1 - decay, which is 1 / tau in the paper.

  Source: Fang et al., "Incorporating Learnable Membrane Time Constant to
  Enhance Learning of Spiking Neural Networks", ICCV 2021.
  """

  threshold: float = threshold_setting(1.0)
  decay: float = first_decay_setting(0.5)
  width: float = width_setting()
  surrogate: str = surrogate_setting('arctan')

  def learned(self, shape):
    """The logit of 1 - decay, `inverse_tau`."""
    del shape
    return {'inverse_tau': filled(logit(1 - self.decay))}

  def values(self, parameters):
    """Threshold and 1 / tau."""
    return self.threshold, jax.nn.sigmoid(parameters['inverse_tau'])

  def input_gain(self, values):
    """1 / tau."""
    return values[1]

  def fire_and_reset(self, values, u):
    """Fires above the threshold and resets to 0."""
    (threshold, gain), (u,) = values, u
    fired = spike(u, threshold, self.width, self.surrogate)
    return [(1 - gain) * u * (1 - fired)], fired


@UNITS.register('ternary')
@dataclasses.dataclass(frozen=True)
class Ternary(IntegratingUnit):
  """Unit with negative spikes too: -1, 0 or 1.

      u[t] = decay * u[t-1] * (1 - |o[t-1]|) + x[t]
      o[t] = 1 if u[t] > V, -1 if u[t] < -V, else 0

  A surrogate window stands at each of the two thresholds. The learned amplitude
  of the paper is left out: the next weights absorb it.

  Source: Guo et al., "Ternary Spike: Learning Ternary Spikes for Spiking Neural
  Networks", AAAI 2024.
  """

  threshold: float = setting(
    0.6,
    'firing threshold of either sign; it scales the normalisation',
    above=0,
  )
  decay: float = decay_setting(0.25)
  width: float = width_setting()
  surrogate: str = surrogate_setting()

  def output_range(self, input_range=None):
    """A negative spike, none or a positive one."""
    del input_range
    return -1, 1

  def fire_and_reset(self, values, u):
    """Fires beyond either threshold and resets to 0."""
    (threshold, decay), (u,) = values, u
    above = spike(u, threshold, self.width, self.surrogate)
    below = spike(-u, threshold, self.width, self.surrogate)
    return [decay * u * (1 - (above + below))], above - below

  def fired_and_in_window(self, values, u):
    """Beyond a threshold; within half a width of one."""
    return above_and_near(jnp.abs(u) - values[0], self.width)
