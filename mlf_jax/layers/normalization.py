"""Normalisations of the current, by name; tdBN is the method's.

tdBN is threshold-dependent batch normalisation.

Source: Zheng et al., "Going Deeper With Directly-Trained Larger Spiking Neural
Networks", AAAI 2021, as used by Feng et al., IJCAI 2022.
"""

import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from mlf_jax.errors import (
  UserError,
  require_bound_axis,
  require_floating,
  require_positive_integers,
)
from mlf_jax.layers.spiking_units import (
  INITIAL_STATE,
  MEMBRANE_POTENTIAL,
  put_state,
  require_folded,
)
from mlf_jax.neuron import Affine
from mlf_jax.registry import Registry, subclass_of

# Flax modules with the attributes `threshold`, `affine` and `axis_name` and the
# methods of `TDBatchNorm`, by the name in `config.model.normalization`.
NORMALIZATIONS: Registry[type[nn.Module]] = Registry(
  'normalization', subclass_of(nn.Module, 'coefficients')
)

# Name of mean and variance for the policies of `jax.checkpoint`.
STATISTICS = 'statistics'


def _standard_deviation(var):
  """Square root whose derivative at 0 is 0 instead of infinite.

  A channel that is constant over the batch, as is common with event frames,
  would otherwise turn every gradient into NaN.
  """
  positive = var > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, var, 1)), 0)


@NORMALIZATIONS.register('tdbn')
class TDBatchNorm(nn.Module):
  """Batch normalisation scaled to the firing threshold.

      y = gamma * alpha * threshold * (x - mean) / (sqrt(var) + epsilon) + beta

  Statistics are over all axes but the last, so time, batch, height and width
  together, per channel. The biased variance normalises; the running variance
  is updated with the unbiased one. Everything is computed in float32 or wider.

  Raises `UserError` for a threshold or momentum outside its range.

  Attributes:
    threshold: firing threshold V_1 of the neurons that follow.
    alpha: a further scale.
    epsilon: added to the standard deviation (not to the variance).
    momentum: weight of the newest batch in the running statistics.
    affine: whether gamma and beta exist; without, they are 1 and 0.
    axis_name: mesh or `pmap` axis over which the batch is divided; statistics
      are then those of the whole batch.
  """

  threshold: float = 0.6
  alpha: float = 1.0
  epsilon: float = 1e-5
  momentum: float = 0.1
  affine: bool = True
  axis_name: str | None = None

  def __post_init__(self):
    """Validates the attributes."""
    if not 0 < self.threshold < float('inf'):
      raise UserError(f'threshold must be positive, got {self.threshold!r}')
    if not 0 <= self.momentum <= 1:
      raise UserError(f'momentum must lie in [0, 1], got {self.momentum!r}')
    super().__post_init__()

  def __call__(
    self,
    x: Float[Array, '*batch channel'],
    use_running_average: bool,
    copies: int = 1,
  ) -> Float[Array, '*batch channel']:
    """Normalises `x`.

    Args:
      x: floating, channels last, at least one axis before them.
      use_running_average: normalise with the running statistics (evaluation)
        instead of those of the batch (training).
      copies: number of times that each sample of `x` counts: an image shown
        at T timesteps is normalised once but counts T times in the unbiased
        variance.

    Returns:
      [*batch, channel] in float32, or in float64 for a float64 input.
    """
    return self.coefficients(x, use_running_average, copies)(x)

  @nn.compact
  def coefficients(
    self,
    x: Float[Array, '*batch channel'],
    use_running_average: bool,
    copies: int = 1,
  ) -> Affine:
    """Coefficients that normalise `x`; arguments as in `__call__`."""
    x = jnp.asarray(x)
    require_floating(x=x)
    if x.ndim < 2:
      raise UserError(f'tdBN needs [..., channel], got shape {x.shape}')
    if x.dtype.itemsize < 4:
      x = x.astype(jnp.float32)
    shape, dtype = x.shape[-1:], x.dtype
    axes = tuple(range(x.ndim - 1))
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype)

    if use_running_average:
      mean = running_mean.value.astype(dtype)
      var = running_var.value.astype(dtype)
    else:
      across = None if self.is_initializing() else self.axis_name
      require_bound_axis(across)
      mean = _mean(x, axes, across)
      var = _mean(jnp.square(x - _lead(mean, x)), axes, across)
      if not self.is_initializing():
        count = x.size // x.shape[-1] * copies
        if across is not None:
          count *= jax.lax.axis_size(across)
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((running_mean, mean), (running_var, unbiased)):
          running.value = (
            1 - self.momentum
          ) * running.value + self.momentum * batch.astype(running.value.dtype)

    scale = self._scale(var)
    if not self.affine:
      return Affine(mean, scale, jnp.zeros_like(mean))
    gamma = self.param('scale', nn.initializers.ones, shape, dtype)
    beta = self.param('bias', nn.initializers.zeros, shape, dtype)
    return Affine(mean, scale * gamma.astype(dtype), beta.astype(dtype))

  def _scale(self, var):
    """Scale before gamma, from the variance."""
    deviation = _standard_deviation(var) + self.epsilon
    return self.alpha * self.threshold / deviation


@NORMALIZATIONS.register('bn')
class BatchNorm(TDBatchNorm):
  """Batch normalisation that leaves the threshold out.

      y = gamma * (x - mean) / sqrt(var + epsilon) + beta

  Statistics, attributes and errors are those of `TDBatchNorm`; `threshold` and
  `alpha` do nothing.

  Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
  """

  def _scale(self, var):
    return jax.lax.rsqrt(var + self.epsilon)


class AffineOverTime(typing.NamedTuple):
  """An `Affine` whose result is scaled at each timestep.

  Attributes:
    affine: the same at all timesteps.
    time_scale: factor of each timestep, [time].
  """

  affine: Affine
  time_scale: Float[Array, 'time']

  def __call__(
    self, x: Float[Array, 'folded *shape']
  ) -> Float[Array, 'folded *shape']:
    """Result for `x`, with time folded into batch."""
    time_steps = len(self.time_scale)
    require_folded(x, time_steps)
    y = self.affine(x).reshape((time_steps, -1, *x.shape[1:]))
    scale = jnp.expand_dims(self.time_scale, tuple(range(1, y.ndim)))
    return (y * scale).reshape(x.shape)


@NORMALIZATIONS.register('tebn')
class TEBatchNorm(BatchNorm):
  """Temporal effective batch normalisation: a learned factor per timestep.

      y[t] = p[t] * (gamma * (x[t] - mean) / sqrt(var + epsilon) + beta)

  Statistics are over all timesteps; `p` starts at 1. Without gamma and beta
  there is no `p` either. A network that runs more timesteps than it was trained
  with keeps the last `p`. A recording that is fed in pieces goes on where it
  was: the number of timesteps so far is part of the network's state.

  Attributes:
    time_steps: timesteps folded into batch.

  Source: Duan et al., "Temporal Effective Batch Normalization in Spiking Neural
  Networks", NeurIPS 2022.
  """

  time_steps: int = 1

  def __post_init__(self):
    """Validates the attributes."""
    require_positive_integers(time_steps=self.time_steps)
    super().__post_init__()

  @nn.compact
  def coefficients(
    self,
    x: Float[Array, '*batch channel'],
    use_running_average: bool,
    copies: int = 1,
  ) -> Affine | AffineOverTime:
    """Coefficients that normalise `x`; arguments as in `__call__`."""
    affine = super().coefficients(x, use_running_average, copies)
    if not self.affine:
      return affine
    dtype = affine.mean.dtype
    if self.has_variable('params', 'time_scale'):
      # It has the length of training, whatever `time_steps` is now.
      learned = self.get_variable('params', 'time_scale')
    else:
      ones = nn.initializers.ones
      learned = self.param('time_scale', ones, (self.time_steps,), dtype)
    start = jnp.zeros((), jnp.int32)
    if self.has_variable(MEMBRANE_POTENTIAL, 'state'):
      start = self.get_variable(MEMBRANE_POTENTIAL, 'state')
    put_state(self, INITIAL_STATE, start)
    put_state(self, MEMBRANE_POTENTIAL, start + jnp.int32(self.time_steps))
    timesteps = start + jnp.arange(self.time_steps, dtype=jnp.int32)
    scale = jnp.take(learned.astype(dtype), timesteps, mode='clip')
    return AffineOverTime(affine, scale)


NORMALIZATIONS.seal()


def _mean(x, axes, axis_name):
  mean = jnp.mean(x, axes)
  if axis_name is not None:
    mean = jax.lax.pmean(mean, axis_name)
  return checkpoint_name(mean, STATISTICS)


def _lead(per_channel, x):
  """Values per channel, broadcastable to `x`."""
  return jnp.expand_dims(per_channel, tuple(range(x.ndim - 1)))
