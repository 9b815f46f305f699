"""What happens inside a trained network on all test samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mlf_jax import activity, data
from mlf_jax.activity.capture import in_order
from mlf_jax.training import Restored, configured_data
from mlf_jax.training import config as config_lib
from mlf_jax.training.activity_pass import gradient_and_activity
from mlf_jax.training.evaluation import with_first_frames
from mlf_jax.training.losses import LOSSES


class Inside(NamedTuple):
  """Activity and gradients by layer, in the order of computation.

  Attributes:
    activity: layers of units to their activity; empty if the units do not offer
      `observe`.
    gradient_norms: layers of weights to the L2 norm of the gradient.
  """

  activity: dict[str, activity.LayerActivity]
  gradient_norms: dict[str, float]


def measure_test_set(
  restored: Restored,
  dataset: data.Dataset,
  *,
  time_steps: int | None = None,
  edges: Float[np.ndarray, 'edge'] | None = None,
) -> Inside:
  """Measures activity and gradients of a network on its test samples.

  The network is in evaluation mode. The gradient is that of the mean loss.

  Args:
    restored: a checkpoint of `training.restore`.
    dataset: its data set, of `training.configured_data.load_dataset`.
    time_steps: timesteps to run, of frames the first; those of training by
      default.
    edges: edges of histograms of membrane potentials, such as
      `activity.membrane_edges(restored.model.unit)`; None for none.

  Raises:
    UserError: more timesteps than frames.
  """
  config, model = restored.config, restored.model
  time_steps = time_steps or config.model.time_steps
  model = model.clone(time_steps=time_steps)
  dataset = with_first_frames(dataset, time_steps)
  normalize = configured_data.normalizer(config, dataset)
  if edges is not None:
    edges = tuple(map(float, edges))

  @jax.jit
  def measure(variables, batch):
    labels = jax.nn.one_hot(
      batch['label'], model.num_classes, dtype=model_dtype
    )
    return gradient_and_activity(
      variables,
      normalize(batch['image']),
      labels,
      batch['mask'].astype(model_dtype) / len(dataset.test),
      model=model,
      loss=LOSSES[config.loss],
      train=False,
      edges=edges,
    )

  with jax.enable_x64(config_lib.is_float64(config)):
    model_dtype = jnp.float64 if config_lib.is_float64(config) else jnp.float32
    variables, gradient, layers = restored.state.eval_variables, None, None
    for batch in data.eval_batches(dataset.test, config.batch_size):
      d_params, counts = measure(variables, batch)
      if gradient is None:
        gradient, layers = d_params, activity.merge(counts)
      else:
        gradient = jax.tree.map(jnp.add, gradient, d_params)
        layers = activity.merge(layers, counts)
    sample = jax.ShapeDtypeStruct(
      (1, *dataset.test.images.shape[1:]), 'float32'
    )
    order = activity.depth_order(model, sample)
    norms = activity.gradient_norms(gradient, order)
  return Inside(
    in_order(layers, order),
    {path: float(norm) for path, norm in norms.items()},
  )
