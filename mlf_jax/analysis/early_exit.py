"""Early exit: a sample stops once the network is confident about it."""

import inspect
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mlf_jax import data
from mlf_jax.errors import UserError, require_axes
from mlf_jax.training import Restored, configured_data, restore
from mlf_jax.training import config as config_lib
from mlf_jax.training import workdir as workdir_lib

# Probabilities that are asked of the class decided for; 1 is never reached.
CONFIDENCES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


class Exit(NamedTuple):
  """Accuracy and mean timesteps if samples stop at a confidence.

  Attributes:
    confidence: a sample stops at the first timestep after which the softmax of
      its mean logits so far reaches this probability, else at the last one.
    mean_time_steps: timesteps that a sample ran, on average.
    accuracy: share of the samples whose decision at that timestep is right.
  """

  confidence: float
  mean_time_steps: float
  accuracy: float


def exit_curve(
  logits: Float[np.ndarray, 'time sample classes'],
  labels: Int[np.ndarray, 'sample'],
  confidences: Sequence[float] = CONFIDENCES,
) -> list[Exit]:
  """Accuracy and mean number of timesteps for each confidence.

  Args:
    logits: logits of every timestep, of `model.apply(..., every_timestep=True)`
      for instance.
    labels: class of each sample.
    confidences: probabilities at which a sample stops. 0 stops after the first
      timestep; 1 runs them all, but for rounding.

  Raises:
    UserError: `logits` has other axes.
  """
  require_axes('time sample classes', logits=logits)
  logits = np.asarray(logits, np.float64)
  time_steps = np.arange(1, len(logits) + 1)
  running = np.cumsum(logits, 0) / time_steps[:, None, None]
  right = running.argmax(-1) == np.asarray(labels)
  # The largest probability of a softmax is one over this sum.
  inverse = np.exp(running - running.max(-1, keepdims=True)).sum(-1)
  curve = []
  for confidence in confidences:
    confident = 1 / inverse >= confidence
    confident[-1] = True
    at = confident.argmax(0)
    accuracy = right[at, np.arange(len(at))].mean()
    curve.append(Exit(confidence, float((at + 1).mean()), float(accuracy)))
  return curve


def evaluate_early_exit(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  dataset: data.Dataset | None = None,
) -> list[Exit]:
  """Prints the curve of early exits on the test samples of a run.

  It is written to `early_exit.json` in the directory.

  Args:
    workdir: directory of the run.
    checkpoint: 'best' or 'last'.
    dataset: arrays of your own, if the run was trained on such.

  Raises:
    UserError: no such run or checkpoint, or a network that does not tell its
      logits of every timestep.
  """
  workdir = pathlib.Path(workdir).expanduser()
  restored = restore(workdir, checkpoint, dataset)
  dataset = configured_data.load_dataset(restored.config, dataset)
  logits = test_logits(restored, dataset, restored.model.time_steps)
  curve = exit_curve(logits, dataset.test.labels)
  print('confidence  mean timesteps  test accuracy')
  for point in curve:
    print(
      f'{point.confidence:10g}  {point.mean_time_steps:14.2f}  '
      f'{point.accuracy:13.4f}'
    )
  stored = {'step': restored.step, 'checkpoint': checkpoint}
  path = workdir / 'early_exit.json'
  workdir_lib.write_json(
    path, stored | {'curve': [point._asdict() for point in curve]}
  )
  print(f'curve in {path}')
  return curve


def test_logits(
  restored: Restored, dataset: data.Dataset, time_steps: int
) -> Float[np.ndarray, 'time sample classes']:
  """Logits of every timestep, of all test samples.

  Args:
    restored: checkpoint and network of a run.
    dataset: the data set.
    time_steps: timesteps to run.

  Raises:
    UserError: the network does not tell its logits of every timestep.
  """
  config, model, _, state = restored
  if 'every_timestep' not in inspect.signature(type(model).__call__).parameters:
    raise UserError(
      f'{type(model).__name__} does not tell its logits of every timestep: its '
      '__call__ has no argument every_timestep'
    )
  model = model.clone(time_steps=time_steps)
  normalize = configured_data.normalizer(config, dataset)

  @jax.jit
  def apply(variables, images):
    return model.apply(variables, normalize(images), every_timestep=True)

  with jax.enable_x64(config_lib.is_float64(config)):
    logits = [
      np.asarray(apply(state.eval_variables, batch['image']))
      for batch in data.eval_batches(dataset.test, config.eval_batch_size)
    ]
  return np.concatenate(logits, 1)[:, : len(dataset.test)]
