"""A pass over a batch that observes the units and differentiates the loss."""

import flax.linen as nn
import jax
import ml_collections
import optax
from jaxtyping import Array, Float

from mlf_jax import activity, data
from mlf_jax.activity.capture import units_hook
from mlf_jax.training.losses import LOSSES
from mlf_jax.training.sharding import all_reduce
from mlf_jax.training.state import TrainState
from mlf_jax.training.step import Batch, Normalize


def activity_step(
  state: TrainState,
  batch: Batch,
  *,
  model: nn.Module,
  config: ml_collections.ConfigDict,
  normalize: Normalize,
) -> tuple[dict[str, activity.LayerActivity], dict[str, Float[Array, '']]]:
  """Activity and gradient norms on the batch of the step before; pure.

  The batch is augmented and normalised as for that step; the weights are those
  after it.

  Args:
    state: state after that step.
    batch: this device's part of the batch.
    model: the network; its `axis_name` is as in `train_step`.
    config: the configuration.
    normalize: maps raw images to the network's input.

  Returns:
    Layers to their activity on the whole batch, without layers if the units do
    not offer `observe`, and to norms of the gradient of the mean loss.
  """
  step, loss = state.step - 1, LOSSES[config.loss]
  inputs, soft_labels = data.augment_batch(
    config.augment, config.seed, step, batch, normalize, model.num_classes
  )
  targets = optax.smooth_labels(soft_labels, config.label_smoothing)
  dropout_key = jax.random.fold_in(jax.random.key(config.seed), step)
  options = {'every_timestep': True} if loss.every_timestep else {}
  hook = lambda *args, **kwargs: None
  # A network of one's own may have no unit.
  if hasattr(getattr(model, 'unit', None), 'observe'):
    hook = units_hook(activity.LayerActivity.of)

  def loss_fn(params):
    (logits, _), layers = activity.capture(
      model,
      {'params': params, 'batch_stats': state.batch_stats},
      inputs,
      hook,
      mutable=['batch_stats'],
      train=True,
      rngs={'dropout': dropout_key},
      **options,
    )
    return loss(logits, targets).mean(), layers

  gradient, layers = jax.grad(loss_fn, has_aux=True)(state.params)
  # As in `train_step`, the local mean is differentiated, then averaged.
  gradient = all_reduce(jax.lax.pmean, gradient, model.axis_name)
  layers = all_reduce(jax.lax.psum, layers, model.axis_name)
  return layers, activity.gradient_norms(gradient)
