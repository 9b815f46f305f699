"""Measures what the network of a run does on the test samples."""

import functools
import inspect
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float

from mlf_jax import activity, data
from mlf_jax.activity.capture import in_order, units_hook
from mlf_jax.analysis import cost
from mlf_jax.errors import UserError
from mlf_jax.layers import Observation, SpikingUnit
from mlf_jax.training import LOSSES, configured_data, restore
from mlf_jax.training import config as config_lib


class Inspection(NamedTuple):
  """A run, and what its network does on the test samples.

  Attributes:
    workdir: directory of the run.
    config: its configuration.
    step: training steps of the checkpoint.
    parameters: number of trainable numbers.
    result: content of `result.json`, empty for an unfinished run.
    metrics: lines of `metrics.jsonl`.
    dataset: the data set.
    unit: description of the spiking units; None if the network names none.
    logits: logits of every timestep; of a network that cannot tell them their
      mean, as if there were one timestep.
    gradient_norms: norm of the gradient of the mean loss over all samples, by
      layer, normalised as in inference.
    activity: activity on all samples, by layer; empty if it cannot be observed.
    first_sample: inside of the units, by layer, for the first test sample:
      arrays [time, level, *shape].
    edges: membrane potentials between the bins of the activity's histograms.
    unobserved: why there is no activity, '' if there is.
    cost: operations and energy per sample, or the line that says why there is
      none.
  """

  workdir: pathlib.Path
  config: ml_collections.ConfigDict
  step: int
  parameters: int
  result: dict
  metrics: list[dict]
  dataset: data.Dataset
  unit: SpikingUnit | None
  logits: Float[np.ndarray, 'time sample classes']
  gradient_norms: dict[str, float]
  activity: dict[str, activity.LayerActivity]
  first_sample: dict[str, Observation]
  edges: tuple[float, ...] | None
  unobserved: str
  cost: cost.Cost | str

  @property
  def knows_every_timestep(self) -> bool:
    """True if there are logits of every timestep."""
    return len(self.logits) == self.config.model.time_steps

  @property
  def mean_logits(self) -> Float[np.ndarray, 'sample classes']:
    """The logits that decide."""
    return self.logits.mean(0)

  @property
  def predictions(self) -> np.ndarray:
    """Class that each test sample is taken for, [sample]."""
    return self.mean_logits.argmax(-1)

  @property
  def accuracy(self) -> float:
    """Test accuracy of the checkpoint."""
    return float((self.predictions == self.dataset.test.labels).mean())


def inspect_run(
  workdir: str | os.PathLike,
  dataset: data.Dataset | None = None,
  checkpoint: str = 'best',
) -> Inspection:
  """Measures the network of a run; nothing in the directory is changed.

  Args:
    workdir: directory of the run, finished or not.
    dataset: arrays of your own, if the run was trained on such.
    checkpoint: 'best' or 'last'.

  Raises:
    UserError: no such run, or no checkpoint yet.
  """
  workdir = pathlib.Path(workdir).expanduser()
  restored = restore(workdir, checkpoint, dataset)
  config, model, step, state = restored
  dataset = configured_data.load_dataset(config, dataset)
  unit = getattr(model, 'unit', None)
  edges, unobserved = None, ''
  if isinstance(unit, SpikingUnit):
    edges = tuple(activity.membrane_edges(unit).tolist())
  measure = functools.partial(
    _measure_test_samples, config, model, state.eval_variables, dataset
  )
  with jax.enable_x64(config_lib.is_float64(config)):
    try:
      measured = measure(edges)
    except UserError as error:
      unobserved, edges = str(error), None
      measured = measure(None)
    if not measured['activity']:
      unobserved = unobserved or (
        f'{type(model).__name__} has no layers.SpikingUnits with the unit of '
        'its attribute unit: only those can be observed'
      )
    try:
      costs = cost.cost_of(restored, dataset)
    except UserError as error:
      costs = str(error)
  return Inspection(
    workdir=workdir,
    config=config,
    step=step,
    parameters=state.num_parameters,
    result=_read(workdir / 'result.json', json.loads, {}),
    metrics=_read(workdir / 'metrics.jsonl', _json_lines, []),
    dataset=dataset,
    unit=unit,
    edges=edges,
    unobserved=unobserved,
    cost=costs,
    **measured,
  )


def _measure_test_samples(config, model, variables, dataset, edges):
  """Logits, gradient norms and, with edges, activity of all test samples."""
  parameters = inspect.signature(type(model).__call__).parameters
  forward_and_backward = functools.partial(
    _forward_and_backward,
    model,
    config.loss,
    'every_timestep' in parameters,
    edges,
    variables,
  )
  normalize = configured_data.normalizer(config, dataset)
  logits, layers, gradient, first_sample = [], [], None, None
  for batch in data.eval_batches(dataset.test, config.eval_batch_size):
    inputs = normalize(jnp.asarray(batch['image']))
    of_batch, new, captured = forward_and_backward(
      inputs, batch['label'], batch['mask']
    )
    logits.append(np.asarray(of_batch)[:, batch['mask'] > 0])
    # On the host: for each shape that is added up there JAX would compile.
    new = jax.device_get(new)
    gradient = new if gradient is None else jax.tree.map(np.add, gradient, new)
    layers.append({path: seen for path, (seen, _) in captured.items()})
    if first_sample is None:
      first_sample = {path: first for path, (_, first) in captured.items()}
  order = activity.depth_order(model, inputs)
  mean = jax.tree.map(lambda leaf: leaf / len(dataset.test), gradient)
  norms = activity.gradient_norms(mean, order)
  layers = activity.merge(*layers)
  return {
    'logits': np.concatenate(logits, 1),
    'gradient_norms': {path: float(norm) for path, norm in norms.items()},
    'activity': in_order(layers, order),
    'first_sample': in_order(jax.device_get(first_sample), order),
  }


# Everything in one program, since to compile takes longer than to run it.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _forward_and_backward(
  model, loss_name, every_timestep, edges, variables, inputs, labels, mask
):
  """Logits, gradient of the summed loss, and what was observed in the units."""
  loss = LOSSES[loss_name]
  labels = jax.nn.one_hot(labels, model.num_classes, dtype=inputs.dtype)

  def observed(seen):
    first = jax.tree.map(lambda array: array[:, :, 0], seen)
    return activity.LayerActivity.of(seen, mask, edges), first

  hook = units_hook(observed) if edges else lambda *unused, **options: None
  options = {'every_timestep': True} if every_timestep else {}

  def loss_fn(params):
    logits, captured = activity.capture(
      model, {**variables, 'params': params}, inputs, hook, **options
    )
    if not every_timestep:
      logits = logits[None]
    losses = loss(logits if loss.every_timestep else logits.mean(0), labels)
    return jnp.sum(losses * mask.astype(losses.dtype)), (logits, captured)

  gradient, (logits, captured) = jax.grad(loss_fn, has_aux=True)(
    variables['params']
  )
  return logits, gradient, captured


def _read(path: pathlib.Path, parse: Callable[[str], Any], default: Any) -> Any:
  """Content of a file that an unfinished run may lack."""
  try:
    return parse(path.read_text())
  except (OSError, ValueError):
    return default


def _json_lines(text):
  """Objects of `metrics.jsonl`; a killed run may leave half a line."""
  lines = []
  for line in text.splitlines():
    try:
      lines.append(json.loads(line))
    except ValueError:
      continue
  return lines
