"""Measures of a finished run: accuracies, dormant units, gradients."""

import pathlib

import numpy as np

from mlf_jax import activity
from mlf_jax.activity.measures import LayerActivity
from mlf_jax.errors import UserError


def test_accuracy(workdir: pathlib.Path, result: dict) -> dict[str, float]:
  """Test accuracy after the last epoch, which nothing was chosen by."""
  del workdir
  return {'test accuracy': result['test/accuracy']}


def chosen_accuracy(workdir: pathlib.Path, result: dict) -> dict[str, float]:
  """Accuracies of the checkpoint with the best validation accuracy.

  Raises:
    UserError: the run has no validation samples.
  """
  if 'best/validation/accuracy' not in result:
    raise UserError(
      f'{workdir} has no validation samples; set config.data.validation'
    )
  return {
    'validation accuracy': result['best/validation/accuracy'],
    'test accuracy': result['best/test/accuracy'],
  }


def network_activity(workdir: pathlib.Path, result: dict) -> dict[str, float]:
  """Dormant share and gradient norms of the last checkpoint, on test samples.

  The first share is of the (unit, timestep) pairs of all layers, the second one
  of the last layer's. The ratio is that of the gradient norms of the last
  hidden and the first layer: far above 1 if the gradient vanishes on its way.
  """
  del result
  # Only now: it takes seconds to import.
  from mlf_jax.analysis.inspection import inspect_run

  seen = inspect_run(workdir, checkpoint='last')
  values = {}
  if layers := list(seen.activity.values()):
    values['dormant share'] = _dormant_share(layers)
    values['dormant share, last units'] = _dormant_share(layers[-1:])
  ratio = activity.last_to_first(seen.gradient_norms)
  return {**values, 'gradient norm, last / first layer': ratio}


def accuracy_by_time(workdir: pathlib.Path, result: dict) -> dict[str, float]:
  """Test accuracy of the last checkpoint with fewer and with more timesteps.

  From 1 timestep to twice as many as in training, or to the frames that there
  are.
  """
  del result
  from mlf_jax.analysis import plots
  from mlf_jax.analysis.early_exit import test_logits
  from mlf_jax.training import configured_data, restore

  restored = restore(workdir, 'last')
  dataset = configured_data.load_dataset(restored.config)
  time_steps = restored.model.time_steps
  if dataset.test.images.ndim == 4:
    time_steps *= 2
  logits = test_logits(restored, dataset, time_steps)
  right = plots.decisions(logits) == dataset.test.labels
  return {f'T={t}': float(r.mean()) for t, r in enumerate(right, start=1)}


def _dormant_share(layers: list[LayerActivity]) -> float:
  dormant = sum(np.sum(layer.dormant) for layer in layers)
  return float(dormant / sum(layer.pairs for layer in layers))
