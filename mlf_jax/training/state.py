"""Everything that one training step hands to the next."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mlf_jax.models import SpikingResNet, SpikingVGG


@flax.struct.dataclass
class TrainState:
  """State of a run: what a checkpoint holds."""

  # Training steps done, skipped ones included.
  step: Int[Array, '']
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  # Exponential moving average of the weights; None unless asked for.
  ema_params: Any
  # Steps whose loss or gradient was not finite: in all, and in a row.
  skipped_steps: Int[Array, '']
  skipped_in_row: Int[Array, '']
  # Sums over the steps since the last line of metrics, kept here so that a
  # resumed run writes the lines of an uninterrupted one.
  loss_sum: Float[Array, '']
  accuracy_sum: Float[Array, '']
  finite_steps: Int[Array, '']

  @property
  def eval_variables(self) -> dict[str, Any]:
    """The variables to evaluate: averaged weights where there are some."""
    params = self.params if self.ema_params is None else self.ema_params
    return {'params': params, 'batch_stats': self.batch_stats}


def init_state(
  model: SpikingResNet | SpikingVGG,
  optimizer: optax.GradientTransformation,
  seed: int,
  sample_shape: tuple[int, ...],
  ema: bool,
) -> TrainState:
  """State before the first step.

  Args:
    model: the network.
    optimizer: the optimiser.
    seed: seed of the parameters.
    sample_shape: shape of one sample, without batch.
    ema: whether to keep an average of the weights.
  """

  def init(key):
    variables = model.init(key, jnp.zeros((1, *sample_shape), jnp.float32))
    params = variables['params']
    # Buffers of their own: the same one must not be donated twice.
    zero = lambda dtype: jnp.zeros((), dtype)
    return TrainState(
      step=zero(jnp.int32),
      params=params,
      batch_stats=variables['batch_stats'],
      opt_state=optimizer.init(params),
      ema_params=jax.tree.map(jnp.copy, params) if ema else None,
      skipped_steps=zero(jnp.int32),
      skipped_in_row=zero(jnp.int32),
      loss_sum=zero(float),
      accuracy_sum=zero(float),
      finite_steps=zero(jnp.int32),
    )

  return jax.jit(init)(jax.random.key(seed))
