"""One training step and one evaluation step, pure functions.

Both take the name of the axis over which the batch is divided; None for a
batch in one piece. N devices give the numbers of one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float, Shaped

from mlf_jax import data, objectives
from mlf_jax.models import SpikingResNet, SpikingVGG
from mlf_jax.settle import settle
from mlf_jax.training import augmentation
from mlf_jax.training import optimizer as optimizer_lib
from mlf_jax.training.state import TrainState

Batch = dict[str, Shaped[Array, 'batch ...']]
Metrics = dict[str, Float[Array, '']]

# Position no sample has: the stream of dropout.
_DROPOUT_POSITION = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Steps:
  """The two steps of a run.

  Attributes:
    model: the network, its `axis_name` that of the steps.
    optimizer: optax transformation.
    config: the configuration.
    normalize: raw images of a batch to the network's input.
    is_line: whether a line of metrics ends with a step, given its number
      (the first is 1).
  """

  model: SpikingResNet | SpikingVGG
  optimizer: optax.GradientTransformation
  config: ml_collections.ConfigDict
  normalize: Callable[[Array], Array]
  is_line: Callable[[Array], Array]

  def train(
    self, state: TrainState, batch: Batch
  ) -> tuple[TrainState, Metrics]:
    """One step of training.

    Args:
      state: state before it.
      batch: from `data.train_batch`, this device's part of it; with partners
        if the configuration mixes samples.

    Returns:
      The state after it, and the metrics of the line so far. Where the loss, a
      gradient or an update is not finite, parameters, statistics and optimiser
      stay as they were and the step counts as skipped; after
      `max_skipped_steps` in a row nothing changes any more.
    """
    chex.assert_equal_shape_prefix(list(batch.values()), 1)
    chex.assert_rank([batch['label'], batch['position']], 1)
    config, axis = self.config, self.model.axis_name
    samples = augmentation.train_samples(
      config, self.normalize, state.step, batch
    )
    (dropout_key,) = data.sample_keys(
      config.seed, state.step, jnp.array([_DROPOUT_POSITION])
    )

    def loss_fn(params):
      logits, new = self.model.apply(
        {'params': params, 'batch_stats': state.batch_stats},
        samples.inputs,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': dropout_key},
      )
      losses, correct = samples.judge(logits, config.label_smoothing)
      return losses.mean(), (new['batch_stats'], correct.mean())

    (loss, (batch_stats, accuracy)), gradient = jax.value_and_grad(
      loss_fn, has_aux=True
    )(state.params)
    # The local mean is differentiated, then averaged: see `jax.shard_map` on
    # why a pmean inside the loss would be wrong.
    if axis is not None:
      loss, accuracy, gradient = jax.lax.pmean((loss, accuracy, gradient), axis)

    updates, opt_state = self.optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if ema_params is not None:
      ema_params = optax.incremental_update(
        params, ema_params, 1 - config.ema_decay
      )

    finite = jnp.isfinite(loss)
    for g, update in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(updates), strict=True
    ):
      finite &= (jnp.isfinite(g) & jnp.isfinite(update)).all()
    # Else XLA repeats all of this in front of every leaf that it decides on,
    # and compiles DS-ResNet-20 in 23 s instead of 10.
    finite = settle(finite.astype(jnp.uint8)) == 1
    accept = finite & (state.skipped_in_row < config.max_skipped_steps)

    def if_accepted(new, old):
      return jax.tree.map(lambda n, o: jnp.where(accept, n, o), new, old)

    new_step = state.step + 1
    skipped_in_row = jnp.where(accept, 0, state.skipped_in_row + 1)
    skipped_steps = state.skipped_steps + (1 - accept.astype(jnp.int32))
    total = state.loss_sum.dtype
    loss_sum = state.loss_sum + jnp.where(accept, loss.astype(total), 0)
    accuracy_sum = state.accuracy_sum + jnp.where(
      accept, accuracy.astype(total), 0
    )
    finite_steps = state.finite_steps + accept.astype(jnp.int32)
    opt_state = if_accepted(opt_state, state.opt_state)
    metrics = {
      'train/loss': loss_sum / finite_steps,
      'train/accuracy': accuracy_sum / finite_steps,
      'train/learning_rate': optimizer_lib.learning_rate(opt_state),
      'train/skipped_steps': skipped_steps,
      'skipped_in_row': skipped_in_row,
    }
    # A new line starts from 0.
    carry_on = 1 - jnp.asarray(self.is_line(new_step), jnp.int32)
    new_state = TrainState(
      step=new_step,
      params=if_accepted(params, state.params),
      batch_stats=if_accepted(batch_stats, state.batch_stats),
      opt_state=opt_state,
      ema_params=if_accepted(ema_params, state.ema_params),
      skipped_steps=skipped_steps,
      skipped_in_row=skipped_in_row,
      loss_sum=loss_sum * carry_on.astype(total),
      accuracy_sum=accuracy_sum * carry_on.astype(total),
      finite_steps=finite_steps * carry_on,
    )
    return new_state, metrics

  def evaluate(self, variables: dict[str, Any], batch: Batch) -> Metrics:
    """Sums over the samples of a batch.

    Args:
      variables: `params` and `batch_stats`.
      batch: `image`, `label` and `mask`, this device's part.

    Returns:
      Sums of `loss`, `correct` and `count` over the samples whose mask is 1,
      of all devices.
    """
    chex.assert_equal_shape_prefix(list(batch.values()), 1)
    chex.assert_rank([batch['label'], batch['mask']], 1)
    logits = self.model.apply(variables, self.normalize(batch['image']))
    mask = batch['mask']
    losses = objectives.cross_entropy(logits, batch['label'])
    correct = objectives.is_correct(logits, batch['label'])
    sums = {
      'loss': jnp.sum(losses * mask.astype(losses.dtype)),
      'correct': jnp.sum(correct.astype(jnp.float32) * mask),
      'count': jnp.sum(mask),
    }
    axis = self.model.axis_name
    return sums if axis is None else jax.lax.psum(sums, axis)
