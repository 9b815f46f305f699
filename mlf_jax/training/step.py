"""One training step and one evaluation step, pure functions.

The batch may be divided among devices: `model.axis_name` then names the axis
over which the steps average, and N devices give the numbers of one device with
the whole batch. It is None for a batch in one piece.
"""

from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float, Shaped

from mlf_jax import data
from mlf_jax.neuron import materialise
from mlf_jax.training.losses import LOSSES, Loss, is_correct
from mlf_jax.training.optimizer import learning_rate
from mlf_jax.training.sharding import all_reduce
from mlf_jax.training.state import TrainState

Batch = dict[str, Shaped[Array, 'batch ...']]
Metrics = dict[str, Float[Array, '']]
Normalize = Callable[[Array], Array]

# No sample has this position in a batch: dropout draws from a key of its own.
_DROPOUT_POSITION = 2**31 - 1
# Augmentations draw from the same keys with streams of their own.
_TIME_STEPS_STREAM = 10


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  config: ml_collections.ConfigDict,
  normalize: Normalize,
) -> tuple[TrainState, Metrics]:
  """Augments a batch, differentiates the loss and updates the parameters.

  Args:
    state: state before the step.
    batch: this device's part of a batch of `data.train_batch`, with mix-up
      partners if the configuration mixes samples. Its `weight` [batch], if
      there, multiplies the loss of each sample. Its `seed` [batch], if there,
      stands for that of the configuration: runs that differ in their seed then
      share a compiled program.
    model: the network.
    optimizer: the optimiser.
    config: the configuration.
    normalize: maps raw images to the network's input.

  Returns:
    The state after the step, and its metrics: `loss` and `accuracy` of this
    batch, `learning_rate`, and the numbers of `skipped_steps` in all and
    `skipped_in_row`. Where the loss, a gradient or an update is not finite,
    parameters, statistics and optimiser stay as they were and the step counts
    as skipped; after `config.max_skipped_steps` skipped steps in a row nothing
    changes any more.
  """
  chex.assert_equal_shape_prefix(list(batch.values()), 1)
  chex.assert_rank([batch['label'], batch['position']], 1)
  loss, random_time_steps = LOSSES[config.loss], config.random_time_steps
  seed = batch['seed'][0] if 'seed' in batch else config.seed

  # --- Inputs and soft labels ---
  inputs, soft_labels = data.augment_batch(
    config.augment, seed, state.step, batch, normalize, model.num_classes
  )
  targets = optax.smooth_labels(soft_labels, config.label_smoothing)
  (dropout_key,) = data.sample_keys(
    seed, state.step, jnp.array([_DROPOUT_POSITION])
  )

  # --- Loss and gradient ---
  def loss_fn(params):
    logits, new = _apply(
      model,
      loss.every_timestep or random_time_steps,
      {'params': params, 'batch_stats': state.batch_stats},
      inputs,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': dropout_key},
    )
    if random_time_steps:
      keys = data.sample_keys(seed, state.step, batch['position'])
      logits = _mean_of_first(logits, keys)
    losses = loss(logits, targets)
    if 'weight' in batch:
      losses *= batch['weight'].astype(losses.dtype)
    correct = is_correct(_over_time(loss, logits), soft_labels)
    return losses.mean(), (new.get('batch_stats', {}), correct.mean())

  (value, (batch_stats, accuracy)), gradient = jax.value_and_grad(
    loss_fn, has_aux=True
  )(state.params)
  # The local mean is differentiated, then averaged: a pmean inside the loss
  # would multiply the gradient by the number of devices.
  value, accuracy, gradient = all_reduce(
    jax.lax.pmean, (value, accuracy, gradient), model.axis_name
  )

  # --- Update ---
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema_params = state.ema_params
  if ema_params is not None:
    ema_params = optax.incremental_update(
      params, ema_params, 1 - config.ema_decay
    )

  # --- A step that is not finite changes nothing but the counters ---
  finite = jnp.isfinite(value)
  for leaf in jax.tree.leaves((gradient, updates)):
    finite &= jnp.isfinite(leaf).all()
  # Otherwise XLA re-evaluates this check for every leaf of the state, and
  # compilation takes twice as long.
  finite = materialise(finite.astype(jnp.uint8)) == 1
  accept = finite & (state.skipped_in_row < config.max_skipped_steps)

  def if_accepted(new, old):
    return jax.tree.map(lambda n, o: jnp.where(accept, n, o), new, old)

  new_state = TrainState(
    step=state.step + 1,
    params=if_accepted(params, state.params),
    batch_stats=if_accepted(batch_stats, state.batch_stats),
    opt_state=if_accepted(opt_state, state.opt_state),
    ema_params=if_accepted(ema_params, state.ema_params),
    skipped_steps=state.skipped_steps + (1 - accept.astype(jnp.int32)),
    skipped_in_row=jnp.where(accept, 0, state.skipped_in_row + 1),
  )
  metrics = {
    'loss': value,
    'accuracy': accuracy,
    'learning_rate': learning_rate(new_state.opt_state),
    'skipped_steps': new_state.skipped_steps,
    'skipped_in_row': new_state.skipped_in_row,
  }
  return new_state, metrics


def eval_step(
  variables: dict[str, Any],
  batch: Batch,
  *,
  model: nn.Module,
  loss: Loss,
  normalize: Normalize,
) -> Metrics:
  """Sums loss and correct predictions over the samples of a batch.

  Args:
    variables: `params` and `batch_stats`.
    batch: this device's part of a batch of `data.eval_batches`.
    model: the network.
    loss: the loss, which gets the labels neither mixed nor smoothed.
    normalize: maps raw images to the network's input.

  Returns:
    Sums of `loss`, `correct` and `count` over the samples of all devices whose
    mask is 1.
  """
  chex.assert_equal_shape_prefix(list(batch.values()), 1)
  chex.assert_rank([batch['label'], batch['mask']], 1)
  inputs = normalize(batch['image'])
  logits = _apply(model, loss.every_timestep, variables, inputs)
  labels = jax.nn.one_hot(batch['label'], model.num_classes, dtype=logits.dtype)
  losses, mask = loss(logits, labels), batch['mask']
  correct = is_correct(_over_time(loss, logits), labels)
  sums = {
    'loss': jnp.sum(losses * mask.astype(losses.dtype)),
    'correct': jnp.sum(correct.astype(jnp.float32) * mask),
    'count': jnp.sum(mask),
  }
  return all_reduce(jax.lax.psum, sums, model.axis_name)


def _apply(model, every_timestep, variables, inputs, **options):
  """Applies the network; the logits of every timestep, or their mean."""
  # A network of one's own may lack the argument.
  if every_timestep:
    options['every_timestep'] = True
  return model.apply(variables, inputs, **options)


def _mean_of_first(logits, keys):
  """Mean logits of the first t timesteps, t drawn for each sample.

  A timestep does not depend on later ones, so but for the statistics of the
  batch this is what the network would compute with t timesteps.
  """

  def draw(key):
    key = jax.random.fold_in(key, _TIME_STEPS_STREAM)
    return jax.random.randint(key, (), 1, len(logits) + 1)

  counts = jax.vmap(draw)(keys)[None]
  is_first = jnp.arange(len(logits))[:, None] < counts
  total = jnp.where(is_first[..., None], logits, 0).sum(0)
  return total / counts[0][:, None].astype(logits.dtype)


def _over_time(loss, logits):
  """Logits [batch, classes], which decide the predicted class."""
  return logits.mean(0) if loss.every_timestep else logits
