"""A pass that differentiates the loss and observes the units on the way."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float

from mlf_jax import activity, data
from mlf_jax.activity.capture import units_hook
from mlf_jax.layers import SpikingUnit
from mlf_jax.training.losses import LOSSES, Loss
from mlf_jax.training.state import TrainState
from mlf_jax.training.step import Batch, Normalize

Layers = dict[str, activity.LayerActivity]


def offers_observe(unit: SpikingUnit | None) -> bool:
  """True if units can be observed; there may be none."""
  return hasattr(unit, 'observe')


def gradient_and_activity(
  variables: Mapping[str, Any],
  inputs: Float[Array, 'batch ...'],
  targets: Float[Array, 'batch classes'],
  weights: Float[Array, 'batch'],
  *,
  model: nn.Module,
  loss: Loss,
  train: bool,
  edges: tuple[float, ...] | None = None,
  rngs: Mapping[str, Array] | None = None,
) -> tuple[Any, Layers]:
  """Gradient of a weighted sum of losses, and the activity on the way.

  Args:
    variables: `params` and `batch_stats`.
    inputs: input of the network.
    targets: soft labels.
    weights: weight of each sample's loss; samples of weight 0 are not counted
      in the activity either.
    model: the network.
    loss: the loss.
    train: whether to normalise with the statistics of the batch.
    edges: edges of a histogram of membrane potentials, or None.
    rngs: keys for dropout.

  Returns:
    Gradient with respect to `params`, and layers to their activity, without
    layers if the units do not offer `observe`. Both of this device alone.
  """
  hook = units_hook(
    lambda seen: activity.LayerActivity.of(seen, weights, edges)
  )
  if not offers_observe(getattr(model, 'unit', None)):
    hook = lambda *_, **__: None
  options = {'every_timestep': True} if loss.every_timestep else {}

  def weighted_loss(params):
    (logits, _), layers = activity.capture(
      model,
      {**variables, 'params': params},
      inputs,
      hook,
      mutable=['batch_stats'],
      train=train,
      rngs=rngs,
      **options,
    )
    return jnp.sum(weights * loss(logits, targets)), layers

  return jax.grad(weighted_loss, has_aux=True)(variables['params'])


def activity_step(
  state: TrainState,
  batch: Batch,
  *,
  model: nn.Module,
  config: ml_collections.ConfigDict,
  normalize: Normalize,
) -> tuple[Layers, dict[str, Float[Array, '']]]:
  """Activity and gradient norms on the batch of the step before.

  Args:
    state: state after that step.
    batch: this device's part of the batch; augmented as for that step.
    model: the network; `axis_name` as in `train_step`.
    config: the configuration.
    normalize: maps raw images to the network's input.

  Returns:
    Layers to their activity on the whole batch, and to the norms of the
    gradient of the mean loss.
  """
  step = state.step - 1
  inputs, soft_labels = data.augment_batch(
    config.augment, config.seed, step, batch, normalize, model.num_classes
  )
  key = jax.random.fold_in(jax.random.key(config.seed), step)
  gradient, layers = gradient_and_activity(
    {'params': state.params, 'batch_stats': state.batch_stats},
    inputs,
    optax.smooth_labels(soft_labels, config.label_smoothing),
    jnp.full(len(inputs), 1 / len(inputs), soft_labels.dtype),
    model=model,
    loss=LOSSES[config.loss],
    train=True,
    rngs={'dropout': key},
  )
  # As in `train_step`, the local mean is differentiated, then averaged.
  if model.axis_name is not None:
    gradient = jax.lax.pmean(gradient, model.axis_name)
    layers = jax.lax.psum(layers, model.axis_name)
  return layers, activity.gradient_norms(gradient)
