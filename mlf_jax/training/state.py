"""The state that one training step hands to the next."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key


@flax.struct.dataclass
class TrainState:
  """State of training; a checkpoint holds all of it."""

  # Training steps done, skipped ones included.
  step: Int[Array, '']
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  # Exponential moving average of the weights; None unless asked for.
  ema_params: Any
  # Steps whose loss, gradient or update was not finite: in all, and in a row.
  skipped_steps: Int[Array, '']
  skipped_in_row: Int[Array, '']

  @property
  def eval_variables(self) -> dict[str, Any]:
    """Variables to evaluate, with the averaged weights if there are any."""
    params = self.params if self.ema_params is None else self.ema_params
    return {'params': params, 'batch_stats': self.batch_stats}

  @property
  def num_parameters(self) -> int:
    """Number of trainable numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.params))


def init_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  seed: int,
  sample_shape: tuple[int, ...],
  ema: bool,
) -> TrainState:
  """Draws the state before the first step.

  Args:
    model: the network.
    optimizer: the optimiser.
    seed: seed of the parameters.
    sample_shape: shape of one sample, without the batch axis.
    ema: True to keep an average of the weights.
  """

  def draw(key):
    return drawn_state(model, optimizer, key, sample_shape, ema)

  options = drawing_options(jax.default_backend())
  return jax.jit(draw, compiler_options=options)(jax.random.key(seed))


def drawn_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  key: Key[Array, ''],
  sample_shape: tuple[int, ...],
  ema: bool,
) -> TrainState:
  """Draws the state inside of a program that is traced; see `init_state`.

  Args:
    model: the network.
    optimizer: the optimiser.
    key: random key of the parameters.
    sample_shape: shape of one sample, without the batch axis.
    ema: True to keep an average of the weights.
  """
  variables = model.init(key, jnp.zeros((1, *sample_shape), jnp.float32))
  params = variables['params']
  # Each counter has a buffer of its own: none may be donated twice.
  zero = lambda: jnp.zeros((), jnp.int32)
  return TrainState(
    step=zero(),
    params=params,
    # A network without running statistics has no such collection.
    batch_stats=variables.get('batch_stats', {}),
    opt_state=optimizer.init(params),
    ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    skipped_steps=zero(),
    skipped_in_row=zero(),
  )


def drawing_options(platform: str) -> dict[str, int]:
  """Compiler options of a program that calls `drawn_state`.

  On CPUs, XLA's full optimisation of the code that draws random numbers takes
  eight times as long as this level, for the same numbers.
  """
  return {'xla_backend_optimization_level': 1} if platform == 'cpu' else {}
