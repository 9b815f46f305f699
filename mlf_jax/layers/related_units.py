"""Spiking units related to MLF: other resets, learned values, other spikes.

All of them add the current to what their reset leaves of the membrane
potential, and run by the same recurrence as MLF units.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax import neuron
from mlf_jax.errors import UserError
from mlf_jax.fields import fields_of
from mlf_jax.layers.spiking_units import UNITS, Observation, SpikingUnit
from mlf_jax.neuron.surrogate import SURROGATES, check_window, spike


def _setting(default, explanation, **bounds):
  metadata = {'help': explanation, **bounds}
  return dataclasses.field(default=default, metadata=metadata)


def _threshold(default):
  return _setting(
    default, 'firing threshold; it scales the normalisation', above=0
  )


def _decay(default):
  return _setting(
    default,
    'decay of the membrane potential per timestep; 1 has no leak',
    low=0,
    high=1,
  )


def _first_decay(default):
  return _setting(
    default,
    'decay of the membrane potential per timestep at the start of training',
    above=0,
    below=1,
  )


def _width():
  return _setting(1.0, 'width of the surrogate window', above=0)


def _surrogate(default='rectangular'):
  return _setting(default, 'shape of the surrogate window', choices=SURROGATES)


def _filled(value):
  """Initialiser of a learned scalar, or of an array of such values."""
  return lambda key, dtype: jnp.asarray(value, dtype)


def _logit(probability):
  return float(np.log(probability) - np.log1p(-probability))


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

  def __post_init__(self):
    """Raises `UserError` for a value outside its range."""
    for field in fields_of(type(self)):
      field.check(getattr(self, field.name), type(self).__name__)

  def values(self, parameters):
    """Returns the values that `fire_and_reset` takes, a tree of scalars.

    Args:
      parameters: values of the learned parameters.
    """
    del parameters
    return ()

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
    values = self._values(parameters, state.dtype)
    current = x_t.astype(state.dtype)
    if (gain := self.input_gain(values)) is not None:
      current = gain * current
    left, _ = self.fire_and_reset(values, list(state))
    u = [u_k + current for u_k in left]
    _, spikes = self.fire_and_reset(values, u)
    return jnp.stack(u), spikes.astype(x_t.dtype)

  def run(self, parameters, x, state, affine=None):
    """`neuron.recurrence`: values and gradients are those of `step`."""
    values = self._values(parameters, state.dtype)
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
    values = self._values(parameters, state.dtype)
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

  def _values(self, parameters, dtype):
    return jax.tree.map(
      lambda value: jnp.asarray(value, dtype), self.values(parameters)
    )


def _above_and_near(z, width):
  """Tells of a potential, z above its threshold: fired, and in the window."""
  return z > 0, jnp.abs(z) < width / 2


def _left_after(fired, kept, reset):
  """`reset` where a unit has fired, else `kept`; differentiable in all three.

  The factors 0 and 1 come last, so that the products are exact and a compiler
  that contracts product and sum cannot change the result.
  """
  return (1 - fired) * kept + fired * reset


@UNITS.register('lif')
@dataclasses.dataclass(frozen=True)
class LIF(IntegratingUnit):
  """Leaky integrate-and-fire unit with a soft or a hard reset.

      soft: u[t] = decay * (u[t-1] - V * o[t-1]) + x[t]
      hard: u[t] = decay * u[t-1] * (1 - o[t-1]) + x[t]

  With a decay of 1 it is the integrate-and-fire unit (IF). With the hard reset
  it equals MLF with one level.

  Source: Eshraghian et al., "Training Spiking Neural Networks Using Lessons
  From Deep Learning", Proceedings of the IEEE, 2023.
  """

  threshold: float = _threshold(0.6)
  decay: float = _decay(0.25)
  reset: str = _setting(
    'soft',
    'what a spike does to the membrane potential: subtract the threshold '
    '(soft) or set it to 0 (hard)',
    choices=('soft', 'hard'),
  )
  width: float = _width()
  surrogate: str = _surrogate()

  @property
  def norm_threshold(self):
    """The threshold."""
    return self.threshold

  def output_range(self, input_range=None):
    """No spike or one."""
    del input_range
    return 0, 1

  def values(self, parameters):
    """Threshold and decay."""
    del parameters
    return self.threshold, self.decay

  def fire_and_reset(self, values, u):
    """Fires above the threshold; subtracts it, or resets to 0."""
    (threshold, decay), (u,) = values, u
    fired = spike(u, threshold, self.width, self.surrogate)
    if self.reset == 'hard':
      return [decay * u * (1 - fired)], fired
    return [_left_after(fired, decay * u, decay * (u - threshold))], fired

  def fired_and_in_window(self, values, u):
    """Above the threshold; within half a width of it."""
    return _above_and_near(u - values[0], self.width)


@UNITS.register('plif')
@dataclasses.dataclass(frozen=True)
class ParametricLIF(IntegratingUnit):
  """LIF unit that learns its decay, one number per layer: PLIF.

      u[t] = decay * u[t-1] * (1 - o[t-1]) + (1 - decay) * x[t]

  The learned number is the logit of 1 - decay, which is 1 / tau in the paper.

  Source: Fang et al., "Incorporating Learnable Membrane Time Constant to
  Enhance Learning of Spiking Neural Networks", ICCV 2021.
  """

  threshold: float = _threshold(1.0)
  decay: float = _first_decay(0.5)
  width: float = _width()
  surrogate: str = _surrogate('arctan')

  @property
  def norm_threshold(self):
    """The threshold."""
    return self.threshold

  def learned(self, shape):
    """The logit of 1 - decay, `inverse_tau`."""
    del shape
    return {'inverse_tau': _filled(_logit(1 - self.decay))}

  def output_range(self, input_range=None):
    """No spike or one."""
    del input_range
    return 0, 1

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

  def fired_and_in_window(self, values, u):
    """Above the threshold; within half a width of it."""
    return _above_and_near(u - values[0], self.width)


@UNITS.register('learned_mlf')
@dataclasses.dataclass(frozen=True)
class LearnedMLF(IntegratingUnit):
  """MLF unit that learns thresholds, decay and initial membrane potential.

  The learned numbers are those of a layer. Distances between neighbouring
  thresholds, and from 0 to the first, are exponentials, so that thresholds stay
  positive and in order; decays are sigmoids. The surrogate window of a level
  stays centred on its threshold.

  Source of the unit: Feng et al., IJCAI 2022; of learned decays, Fang et al.,
  ICCV 2021; of learned thresholds, Wang et al., "LTMD: Learning Improvement of
  Spiking Neural Networks with Learnable Thresholding Neurons and Moderate
  Dropout", NeurIPS 2022.
  """

  thresholds: tuple[float, ...] = _setting(
    (0.6, 1.6, 2.6),
    'firing threshold of each level at the start of training, increasing; the '
    'first scales the normalisation',
    above=0,
  )
  decay: float = _first_decay(0.25)
  learn_thresholds: bool = _setting(True, 'learn the thresholds')
  learn_decay: str = _setting(
    'level',
    'learn one decay per level or per layer, or none',
    choices=('level', 'layer', 'none'),
  )
  learn_start: bool = _setting(
    False, 'learn the membrane potential before the first timestep'
  )
  width: float = _setting(
    1.0, 'width of the surrogate window around each threshold', above=0
  )
  surrogate: str = _surrogate()

  def __post_init__(self):
    """Validates the values."""
    thresholds = tuple(map(float, self.thresholds))
    object.__setattr__(self, 'thresholds', thresholds)
    super().__post_init__()
    check_window(self.width, self.surrogate)
    if not thresholds or np.any(np.diff(thresholds) <= 0):
      raise UserError(
        f'LearnedMLF.thresholds must be strictly increasing, got {thresholds}'
      )

  @property
  def num_levels(self):
    """Number of levels K."""
    return len(self.thresholds)

  @property
  def norm_threshold(self):
    """The first threshold at the start of training."""
    return self.thresholds[0]

  def learned(self, shape):
    """What the fields say: `log_gaps`, `decay_logit` and `start`."""
    del shape
    learned = {}
    if self.learn_thresholds:
      gaps = np.diff(self.thresholds, prepend=0)
      learned['log_gaps'] = _filled(np.log(gaps))
    if self.learn_decay != 'none':
      count = self.num_levels if self.learn_decay == 'level' else 1
      learned['decay_logit'] = _filled(np.full(count, _logit(self.decay)))
    if self.learn_start:
      learned['start'] = _filled(np.zeros(self.num_levels))
    return learned

  def output_range(self, input_range=None):
    """From no level fired to all of them."""
    del input_range
    return 0, self.num_levels

  def values(self, parameters):
    """Threshold and decay of each level."""
    thresholds, decays = self.thresholds, [self.decay] * self.num_levels
    if self.learn_thresholds:
      thresholds = jnp.cumsum(jnp.exp(parameters['log_gaps']))
    if self.learn_decay != 'none':
      learned = jax.nn.sigmoid(parameters['decay_logit'])
      decays = jnp.broadcast_to(learned, self.num_levels)
    return list(thresholds), list(decays)

  def init_state(self, parameters, shape, dtype):
    """Membrane potentials at rest, or the learned ones."""
    state = super().init_state(parameters, shape, dtype)
    if not self.learn_start:
      return state
    start = parameters['start'].astype(dtype)
    return state + start.reshape((-1,) + (1,) * len(shape))

  def fire_and_reset(self, values, u):
    """Each level fires above its threshold and is reset to 0."""
    left, spikes = [], 0
    for v, decay, u_k in zip(*values, u, strict=True):
      fired = spike(u_k, v, self.width, self.surrogate)
      left.append(decay * u_k * (1 - fired))
      spikes += fired
    return left, spikes

  def fired_and_in_window(self, values, u):
    """Above the thresholds; within half a width of them."""
    lead = tuple(range(u.ndim - 1))
    thresholds = jnp.expand_dims(jnp.stack(values[0]), lead)
    return _above_and_near(u - thresholds, self.width)


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

  @property
  def norm_threshold(self):
    """The distance between two levels."""
    return self.threshold

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

  levels: int = _setting(4, 'most spikes per timestep D', low=1)
  decay: float = _decay(0.25)

  threshold = 1.0
  _offset = 0.0

  def values(self, parameters):
    """Distance of the levels, and decay."""
    del parameters
    return self.threshold, self.decay

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

  levels: int = _setting(4, 'number of levels L', low=1)
  threshold: float = _setting(
    1.0,
    'distance of the levels at the start of training; it scales the '
    'normalisation',
    above=0,
  )
  decay: float = _first_decay(0.5)

  _offset = -0.5

  def learned(self, shape):
    """The logarithm of V and the logit of the decay."""
    del shape
    return {
      'log_threshold': _filled(np.log(self.threshold)),
      'decay_logit': _filled(_logit(self.decay)),
    }

  def values(self, parameters):
    """Distance of the levels, and decay."""
    return (
      jnp.exp(parameters['log_threshold']),
      jax.nn.sigmoid(parameters['decay_logit']),
    )


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

  threshold: float = _setting(
    0.6,
    'firing threshold of either sign; it scales the normalisation',
    above=0,
  )
  decay: float = _decay(0.25)
  width: float = _width()
  surrogate: str = _surrogate()

  @property
  def norm_threshold(self):
    """The threshold."""
    return self.threshold

  def output_range(self, input_range=None):
    """A negative spike, none or a positive one."""
    del input_range
    return -1, 1

  def values(self, parameters):
    """Threshold and decay."""
    del parameters
    return self.threshold, self.decay

  def fire_and_reset(self, values, u):
    """Fires beyond either threshold and resets to 0."""
    (threshold, decay), (u,) = values, u
    above = spike(u, threshold, self.width, self.surrogate)
    below = spike(-u, threshold, self.width, self.surrogate)
    return [decay * u * (1 - (above + below))], above - below

  def fired_and_in_window(self, values, u):
    """Beyond a threshold; within half a width of one."""
    return _above_and_near(jnp.abs(u) - values[0], self.width)


UNITS.seal()
