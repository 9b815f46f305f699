"""The time axis of a network: how it enters, is repeated and is averaged.

Inside a network, time is folded into batch, time-major: [time * batch, ...].
Only the units and the readout see time as an axis of its own.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax.errors import UserError
from mlf_jax.layers.spiking_units import (
  INITIAL_STATE,
  MEMBRANE_POTENTIAL,
  put_state,
  require_folded,
)


def fold_time_into_batch(
  x: Num[Array, 'batch *rest'], time_steps: int, dtype
) -> tuple[Float[Array, 'folded height width channel'], int]:
  """Turns batch-major input into time-major; the only place that does.

  Args:
    x: images [batch, height, width, channel], or frames [batch, time, height,
      width, channel], of any real dtype.
    time_steps: timesteps the network runs.
    dtype: dtype of the result.

  Returns:
    The input with time folded into batch, [time * batch, height, width,
    channel], and the number of timesteps that each entry stands for: 1 for
    frames; `time_steps` for images, which are not repeated here.

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


def repeat_over_time(
  x: Float[Array, 'batch *shape'], copies: int
) -> Float[Array, 'folded *shape']:
  """Repeats the stem's result for an image at each of its timesteps."""
  if copies == 1:
    return x
  return jnp.broadcast_to(x, (copies, *x.shape)).reshape((-1, *x.shape[1:]))


class Readout(nn.Module):
  """Mean over space and over all timesteps so far.

  It sums, and divides at the end. Sums of whole numbers below 2**24 are exact
  in float32 in any order, so a recording fed in pieces ends with the numbers of
  the whole recording. Sum and number of timesteps are carried between calls
  like the state of `SpikingUnits`.

  Attributes:
    time_steps: timesteps folded into batch.
    dtype: dtype of the sum, float32 or wider.
  """

  time_steps: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'folded *space channel'], every_timestep: bool = False
  ) -> Float[Array, '*time batch channel']:
    """Averages `x`.

    Args:
      x: time folded into batch.
      every_timestep: whether to average over space alone; nothing is carried
        then.

    Returns:
      [batch, channel], or [time, batch, channel] for every timestep.
    """
    require_folded(x, self.time_steps)
    batch, space = x.shape[0] // self.time_steps, x.shape[1:-1]
    x = x.reshape((self.time_steps, batch, *x.shape[1:])).astype(self.dtype)
    if every_timestep:
      return x.mean(tuple(range(2, x.ndim - 1)))
    state = (
      jnp.zeros((batch, x.shape[-1]), self.dtype),
      jnp.zeros((), jnp.int32),
    )
    if self.has_variable(MEMBRANE_POTENTIAL, 'state'):
      state = self.get_variable(MEMBRANE_POTENTIAL, 'state')
    put_state(self, INITIAL_STATE, state)
    total = x.sum((0, *range(2, x.ndim - 1))) + state[0]
    time_steps = jnp.asarray(self.time_steps, jnp.int32) + state[1]
    put_state(self, MEMBRANE_POTENTIAL, (total, time_steps))
    # Compilers turn a division into this product in some programs only, and the
    # last bit differs.
    return total * (1 / (time_steps * math.prod(space)).astype(self.dtype))
