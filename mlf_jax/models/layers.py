"""What the networks share: the time axis, the neuron, initialisers, checks.

Inside a network, time is folded into batch, time-major: [time * batch, ...].
Only the neuron and the readout see time as an axis of its own.
"""

import functools
import math
import numbers
from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax import neuron
from mlf_jax.errors import UserError

# Collection of what a network carries from piece to piece of a recording.
MEMBRANE_POTENTIAL = 'membrane_potential'

# Not truncated, unlike `nn.initializers.he_normal`.
he_normal = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


def uniform_fan_in(fan_in: int) -> Callable:
  """Initialiser: uniform between +-1 / sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def enter_time(
  x: Num[Array, 'batch *rest'], time_steps: int, dtype
) -> tuple[Float[Array, 'folded height width channel'], int]:
  """The one place where batch-major input becomes time-major.

  Args:
    x: images [batch, height, width, channel], or frames [batch, time, height,
      width, channel], of any real dtype.
    time_steps: timesteps the network runs.
    dtype: dtype the network computes in.

  Returns:
    The input with time folded into batch, [time * batch, height, width,
    channel], and the number of timesteps each entry stands for: 1 for frames;
    `time_steps` for images, which are not repeated.

  Raises:
    UserError: wrong rank, or frames with another number of timesteps.
  """
  if x.ndim == 4:
    return x.astype(dtype), time_steps
  if x.ndim != 5:
    raise UserError(
      f'input of shape {x.shape} has rank {x.ndim}; expected images [batch, '
      'height, width, channel] or frames [batch, '
      f'{time_steps}, height, width, channel]'
    )
  if x.shape[1] != time_steps:
    raise UserError(
      f'frames of shape {x.shape} have {x.shape[1]} timesteps on axis 1, the '
      f'network runs {time_steps}; expected shape '
      f'{(x.shape[0], time_steps, *x.shape[2:])}, [batch, time, height, width, '
      'channel]'
    )
  x = jnp.swapaxes(x, 0, 1)
  return x.reshape((-1, *x.shape[2:])).astype(dtype), 1


class MLFUnits(nn.Module):
  """MLF units over a current whose time is folded into batch.

  They start at rest, or from the membrane potentials in the collection
  `MEMBRANE_POTENTIAL` if it is given: `u`, [level, batch, ...]. They leave
  those of the last timestep there if it is mutable.

  Attributes:
    params: parameters of the units.
    time_steps: timesteps folded into batch.
    dtype: dtype of the spikes, that in which the next layer computes.
  """

  params: neuron.MLFParams
  time_steps: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'folded *shape'],
    affine: neuron.Affine | None = None,
  ) -> Float[Array, 'folded *shape']:
    """Spikes of a current, `affine(x)` if that is given."""
    chex.assert_type(x, float)
    chex.assert_is_divisible(x.shape[0], self.time_steps)
    if affine is not None:
      # Here, and not in the loop over time: a compiler may leave out the
      # rounding to a narrow dtype, and is to do so whatever the number of
      # timesteps.
      x = x.astype(affine.mean.dtype)
    current = x.reshape((self.time_steps, -1, *x.shape[1:]))
    state = None
    if self.has_variable(MEMBRANE_POTENTIAL, 'u'):
      state = neuron.MLFState(self.get_variable(MEMBRANE_POTENTIAL, 'u'))
    state, spikes = neuron.run(self.params, current, state, affine)
    if _keeps_state(self):
      self.put_variable(MEMBRANE_POTENTIAL, 'u', state.membrane_potential)
    return spikes.reshape(x.shape).astype(self.dtype)


def show_every_timestep(
  x: Float[Array, 'batch *shape'], copies: int
) -> Float[Array, 'folded *shape']:
  """Repeats what an image became in the stem for each of its timesteps."""
  if copies == 1:
    return x
  return jnp.broadcast_to(x, (copies, *x.shape)).reshape((-1, *x.shape[1:]))


class Readout(nn.Module):
  """Mean spikes over space and over all timesteps so far.

  A unit without leak and threshold: it adds up, and divides at the end. Sums
  of whole numbers below 2**24 are exact in float32, whatever the order, so a
  recording in pieces ends in the number of the whole one. The collection
  `MEMBRANE_POTENTIAL` carries the sum, `u` [batch, channel], and the number of
  timesteps, `time_steps`, as it carries the state of `MLFUnits`.

  Attributes:
    time_steps: timesteps folded into batch.
    dtype: dtype of the sum, float32 or wider.
  """

  time_steps: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'folded *space channel']
  ) -> Float[Array, 'batch channel']:
    """Averages `x` over all but batch and channel."""
    chex.assert_is_divisible(x.shape[0], self.time_steps)
    x = x.reshape((self.time_steps, -1, *x.shape[1:])).astype(self.dtype)
    space = x.shape[2:-1]
    u = x.sum((0, *range(2, x.ndim - 1)))
    time_steps = jnp.asarray(self.time_steps, jnp.int32)
    if self.has_variable(MEMBRANE_POTENTIAL, 'u'):
      u += self.get_variable(MEMBRANE_POTENTIAL, 'u')
      time_steps += self.get_variable(MEMBRANE_POTENTIAL, 'time_steps')
    if _keeps_state(self):
      self.put_variable(MEMBRANE_POTENTIAL, 'u', u)
      self.put_variable(MEMBRANE_POTENTIAL, 'time_steps', time_steps)
    # Not a division: compilers turn one into this in some programs only, and
    # its last bit is another.
    return u * (1 / (time_steps * math.prod(space)).astype(self.dtype))


def _keeps_state(module: nn.Module) -> bool:
  """Whether a module leaves its state in `MEMBRANE_POTENTIAL`.

  Every collection is mutable at `init`, which is to return no state.
  """
  return not module.is_initializing() and module.is_mutable_collection(
    MEMBRANE_POTENTIAL
  )


class TimestepDropout(nn.Module):
  """Dropout whose mask is drawn for each timestep, sample and feature.

  With the batch divided over a mesh axis, every device draws the mask of the
  whole batch and keeps its own part, so that N devices give the numbers of
  one.
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


def check_sizes(**sizes) -> None:
  """Raises `UserError` naming the first size that is not a positive integer."""
  for name, value in sizes.items():
    values = value if isinstance(value, (tuple, list)) else (value,)
    if not values or any(
      isinstance(v, bool) or not isinstance(v, numbers.Integral) or v < 1
      for v in values
    ):
      raise UserError(f'{name} must be positive whole numbers, got {value!r}')


def check_neuron(module: nn.Module) -> neuron.MLFParams:
  """The neurons of a network, from its attributes; raises if they are wrong."""
  try:
    floating = jnp.issubdtype(jnp.dtype(module.dtype), jnp.floating)
  except TypeError:
    floating = False
  if not floating:
    raise UserError(f'dtype must be a floating dtype, got {module.dtype!r}')
  return neuron.MLFParams(
    module.thresholds, module.decay, module.width, module.surrogate
  )


def units_of(module: nn.Module) -> Callable:
  """The MLF units of a network, their attributes bound."""
  params = check_neuron(module)
  return functools.partial(MLFUnits, params, module.time_steps, module.dtype)
