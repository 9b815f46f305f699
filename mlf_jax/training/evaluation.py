"""Loss and accuracy of a network on a whole split, and of a checkpoint."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from mlf_jax import data
from mlf_jax.errors import UserError, require_positive_integers
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.losses import LOSSES
from mlf_jax.training.optimizer import make_optimizer
from mlf_jax.training.sharding import AXIS, DataParallel
from mlf_jax.training.state import TrainState, drawn_state
from mlf_jax.training.step import eval_step


def make_evaluator(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  dataset: data.Dataset,
  parallel: DataParallel,
) -> Callable[[dict], dict[str, float]]:
  """Makes a function that evaluates variables on all samples held out.

  Args:
    config: the configuration.
    model: the network; its `axis_name` is that of `parallel`.
    dataset: the data set.
    parallel: devices to evaluate on.

  Returns:
    A function of `params` and `batch_stats` that returns `test/loss` and
    `test/accuracy`, and `validation/loss` and `validation/accuracy` before them
    if there are validation samples.
  """
  step = parallel.parallelize(
    functools.partial(
      eval_step,
      model=model,
      loss=LOSSES[config.loss],
      normalize=configured_data.normalizer(config, dataset),
    )
  )
  # Checkpoints may be evaluated on another number of devices than they were
  # trained on, which need not divide the configured batch.
  n = parallel.num_devices
  batch_size = -(-config.eval_batch_size // n) * n

  def evaluate_split(variables, name, split):
    sums = None
    rows = parallel.rows(batch_size)
    for batch in data.eval_batches(split, batch_size, rows):
      new = step(variables, parallel.shard_batch(batch))
      sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
    # Whole numbers are exact in Python's floats, and so the accuracy is.
    sums = {name: float(value) for name, value in jax.device_get(sums).items()}
    assert sums['count'] == len(split), 'each sample exactly once'
    return {
      f'{name}/loss': sums['loss'] / sums['count'],
      f'{name}/accuracy': sums['correct'] / sums['count'],
    }

  def evaluate_variables(variables):
    metrics = {}
    for name, split in dataset.splits.items():
      if name != 'train':
        metrics |= evaluate_split(variables, name, split)
    return metrics

  return evaluate_variables


class Restored(NamedTuple):
  """A checkpoint of a run, with the network that it belongs to."""

  config: ml_collections.ConfigDict
  model: nn.Module
  step: int
  state: TrainState


def restore(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  dataset: data.Dataset | None = None,
) -> Restored:
  """Reads a checkpoint of a run; nothing in the directory is changed.

  Args:
    workdir: directory of the run.
    checkpoint: 'best' or 'last'.
    dataset: arrays of your own, if the run was trained on such.

  Returns:
    The configuration, the network, the number of training steps and the state
    after them.

  Raises:
    UserError: no run, no checkpoint, or none that can be read.
  """
  config = workdir_lib.stored_config(workdir)
  spec = configured_data.sample_spec(config, dataset)
  return restore_spec(workdir, config, spec, checkpoint)


def restore_spec(
  workdir: str | os.PathLike,
  config: ml_collections.ConfigDict,
  spec: tuple[tuple[int, ...], int],
  checkpoint: str,
) -> Restored:
  """Reads a checkpoint of a run on samples of a known shape.

  Args:
    workdir: directory of the run.
    config: its configuration.
    spec: shape of a sample, and number of classes.
    checkpoint: 'best' or 'last'.

  Raises:
    UserError: no checkpoint, or none that can be read.
  """
  workdir = pathlib.Path(workdir).expanduser()
  sample_shape, num_classes = spec
  model = config_lib.build_model(config, num_classes)
  # The structure of the optimiser's state does not depend on the schedule.
  optimizer = make_optimizer(config, optax.constant_schedule(0.0))
  with jax.enable_x64(config_lib.is_float64(config)):
    template = jax.eval_shape(
      lambda key: drawn_state(
        model, optimizer, key, sample_shape, config.ema_decay > 0
      ),
      jax.random.key(0),
    )
    # A training process may be writing there: corrupt checkpoints stay.
    with CheckpointStore(workdir / 'checkpoints', move_corrupt=False) as store:
      restored = store.restore(template, checkpoint)
  if restored is None:
    raise UserError(f'{workdir} has no checkpoint yet')
  step, state, _ = restored
  return Restored(config, model, step, state)


def with_first_frames(dataset: data.Dataset, time_steps: int) -> data.Dataset:
  """Data set with the first frames alone of its test and validation samples.

  Static images stay as they are.

  Raises:
    UserError: there are fewer frames.
  """
  images = dataset.test.images
  if images.ndim != 5:
    return dataset
  if time_steps > images.shape[1]:
    raise UserError(
      f'--time_steps {time_steps}: {dataset.name} has {images.shape[1]} '
      'frames per sample'
    )
  shorter = {
    name: dataclasses.replace(split, images=split.images[:, :time_steps])
    for name, split in dataset.splits.items()
    if name != 'train'
  }
  return dataclasses.replace(dataset, **shorter)


def evaluate(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  time_steps: int | None = None,
  dataset: data.Dataset | None = None,
) -> dict:
  """Prints the test accuracy of a checkpoint and adds it to a file.

      line = evaluate('runs/digits', 'last')

  Args:
    workdir: directory of the run.
    checkpoint: 'best' or 'last'.
    time_steps: timesteps to run; those of training by default. Of frames the
      first `time_steps` are taken.
    dataset: arrays of your own, if the run was trained on such; their test
      samples are evaluated.

  Returns:
    The line that was added to `evaluations.jsonl`.

  Raises:
    UserError: no such run or checkpoint, or more timesteps than frames.
  """
  # --- Checkpoint and network ---
  workdir = pathlib.Path(workdir).expanduser()
  config, model, step, state = restore(workdir, checkpoint, dataset)
  if time_steps is None:
    time_steps = config.model.time_steps
  require_positive_integers(time_steps=time_steps)

  # --- Test samples ---
  dataset = with_first_frames(
    configured_data.load_dataset(config, dataset), time_steps
  )

  # --- Evaluation ---
  parallel = DataParallel(config.parallel)
  with jax.enable_x64(config_lib.is_float64(config)):
    model = model.clone(time_steps=time_steps, axis_name=AXIS)
    evaluator = make_evaluator(config, model, dataset, parallel)
    line = {
      'step': step,
      'checkpoint': checkpoint,
      'time_steps': time_steps,
      **evaluator(parallel.replicate(state.eval_variables)),
      'split_name': dataset.split_name,
    }
  metrics = (f'{name} {line[name]:.4f}' for name in line if '/' in name)
  print(f'step {step}  T = {time_steps}  {"  ".join(metrics)}')
  path = workdir / 'evaluations.jsonl'
  with workdir_lib.write_errors(path), open(path, 'a') as file:
    file.write(workdir_lib.json_text(line) + '\n')
  return line
