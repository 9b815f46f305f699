"""Base of units that add the current to what their reset leaves.

Units of this form run by the recurrence of MLF units.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax import neuron
from mlf_jax.fields import fields_of
from mlf_jax.layers.spiking_units import Observation, SpikingUnit
from mlf_jax.neuron.surrogate import SURROGATES, check_window


class IntegratingUnit(SpikingUnit):
  """Base of units that add the current to what their reset leaves.

      u_k[t] = left_k(u[t-1]) + x[t]

  A unit defines `fire_and_reset`, which gives what is left and the spikes, and
  `output_range`. Its `run` is the fast path of MLF units; the backward pass
  follows from `fire_and_reset`.

  The state is the membrane potential of each level, [level, ...], before the
  reset.
  """

  num_levels: int = 1

  @property
  def norm_threshold(self):
    """The field `threshold`."""
    return self.threshold

  def __post_init__(self):
    """Raises `UserError` for a value outside its range."""
    for field in fields_of(type(self)):
      value = getattr(self, field.name)
      if field.choices is SURROGATES and callable(value):
        check_window(1.0, value)  # Says where a function belongs.
      field.check(value, type(self).__name__)

  def values(self, parameters):
    """Returns the values that `fire_and_reset` takes, a tree of scalars.

    They are the fields `threshold` and `decay` unless a unit overrides this.

    Args:
      parameters: values of the learned parameters.
    """
    del parameters
    return self.threshold, self.decay

  @abc.abstractmethod
  def fire_and_reset(self, values, u):
    """Returns what the reset leaves of each level, and the spikes.

    Args:
      values: from `values`, in the dtype of `u`.
      u: membrane potential of each level, before the reset.
    """

  def input_gain(self, values):
    """Returns the factor of the input current, None for 1."""
    del values

  def init_state(self, parameters, shape, dtype):
    """Membrane potentials at rest, [level, *shape]."""
    del parameters
    return jnp.zeros((self.num_levels, *shape), dtype)

  def step(self, parameters, state, x_t):
    """Adds the current to what the last timestep has left, and fires."""
    values = self._wide_values(parameters, state.dtype)
    current = x_t.astype(state.dtype)
    if (gain := self.input_gain(values)) is not None:
      current = gain * current
    left, _ = self.fire_and_reset(values, list(state))
    u = [u_k + current for u_k in left]
    _, spikes = self.fire_and_reset(values, u)
    return jnp.stack(u), spikes.astype(x_t.dtype)

  def run(self, parameters, x, state, affine=None):
    """`neuron.recurrence`: values and gradients are those of `step`."""
    values = self._wide_values(parameters, state.dtype)
    current = x
    if (gain := self.input_gain(values)) is None:
      pass
    elif affine is None:
      current = gain * x.astype(state.dtype)
    else:
      affine = affine._replace(
        scale=gain * affine.scale, bias=gain * affine.bias
      )
    arguments = neuron.vary_alike(current, state, affine, values)
    state, spikes = neuron.recurrence(self, *arguments)
    return state, spikes.astype(x.dtype)

  def observe(self, parameters, x, state, affine=None):
    """Membrane potentials, fired levels and window membership."""
    values = self._wide_values(parameters, state.dtype)
    current = x if affine is None else affine(x)

    def body(state, x_t):
      state, _ = self.step(parameters, state, x_t)
      return state, state

    _, u = jax.lax.scan(body, state, current)
    fired, in_window = self.fired_and_in_window(values, jnp.moveaxis(u, 1, -1))
    fired, in_window = (jnp.moveaxis(a, -1, 1) for a in (fired, in_window))
    return Observation(u, fired, in_window)

  @abc.abstractmethod
  def fired_and_in_window(self, values, u):
    """Returns whether levels have fired, and whether spikes have a gradient.

    Args:
      values: from `values`.
      u: membrane potentials, [..., level], before the reset.
    """

  def _wide_values(self, parameters, dtype):
    return jax.tree.map(
      lambda value: jnp.asarray(value, dtype), self.values(parameters)
    )


def above_and_near(z, width):
  """Tells of a potential, z above its threshold: fired, and in the window."""
  return z > 0, jnp.abs(z) < width / 2


def setting(default, explanation, **bounds):
  """Field of a unit, with its explanation and its bounds."""
  metadata = {'help': explanation, **bounds}
  return dataclasses.field(default=default, metadata=metadata)


def threshold_setting(default):
  """The field `threshold`."""
  return setting(
    default, 'firing threshold; it scales the normalisation', above=0
  )


def decay_setting(default):
  """The field `decay`, a constant."""
  return setting(
    default,
    'decay of the membrane potential per timestep; 1 has no leak',
    low=0,
    high=1,
  )


def first_decay_setting(default):
  """The field `decay` of a unit that learns it."""
  return setting(
    default,
    'decay of the membrane potential per timestep at the start of training',
    above=0,
    below=1,
  )


def width_setting():
  """The field `width`."""
  return setting(1.0, 'width of the surrogate window', above=0)


def surrogate_setting(default='rectangular'):
  """The field `surrogate`."""
  return setting(default, 'shape of the surrogate window', choices=SURROGATES)


def filled(value):
  """Initialiser of a learned scalar, or of an array of such values."""
  return lambda key, dtype: jnp.asarray(value, dtype)


def logit(probability):
  """Inverse of the logistic function."""
  return float(np.log(probability) - np.log1p(-probability))
