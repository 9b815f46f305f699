"""Evaluates a checkpoint of a run."""

import dataclasses
import json
import pathlib

import jax

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import loop
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.parallel import DataParallel


def evaluate(
  workdir: str, which: str = 'best', time_steps: int | None = None
) -> dict:
  """Test accuracy of a checkpoint, printed and kept in `evaluations.jsonl`.

  Args:
    workdir: directory of the run.
    which: 'best' or 'last'.
    time_steps: timesteps to run; those of training by default. Of frames the
      first `time_steps` are taken.

  Returns:
    The line that was written.

  Raises:
    UserError: no such run or checkpoint, or more timesteps than frames.
  """
  workdir = pathlib.Path(workdir)
  stored = workdir_lib.read_json(workdir / 'config.json')
  config = config_lib.from_json(stored)
  with jax.enable_x64(config.model.dtype == 'float64'):
    line = _evaluate(workdir, config, which, time_steps)
  print(
    f'step {line["step"]}  T = {line["time_steps"]}  '
    f'test/loss {line["test/loss"]:.4f}  '
    f'test/accuracy {line["test/accuracy"]:.4f}'
  )
  try:
    with open(workdir / 'evaluations.jsonl', 'a') as file:
      file.write(json.dumps(line) + '\n')
  except OSError as error:
    raise UserError(
      f'cannot write {workdir / "evaluations.jsonl"}: {error.strerror}'
    ) from None
  return line


def _evaluate(workdir, config, which, time_steps):
  parallel = DataParallel(config.parallel)
  # A run of other devices may have had batches these cannot share evenly.
  n = parallel.num_devices
  config.eval_batch_size = -(-config.eval_batch_size // n) * n
  train_set, test_set = (
    data.load(
      config.data.name,
      split,
      data_dir=config.data.dir,
      manual_dir=config.data.manual_dir,
    )
    for split in ('train', 'test')
  )
  steps = loop.make_steps(config, train_set, loop.Schedule(config, train_set))
  template = jax.eval_shape(lambda: loop.init_state(steps, config, train_set))
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=parallel.replicated
    ),
    template,
  )
  with CheckpointStore(workdir / 'checkpoints') as store:
    restored = store.restore(template, which)
  if restored is None:
    raise UserError(f'{workdir} has no checkpoint yet')
  step, state, _ = restored

  if time_steps is None:
    time_steps = config.model.time_steps
  if test_set.images.ndim == 5:
    available = test_set.images.shape[1]
    if time_steps > available:
      raise UserError(
        f'--time_steps {time_steps}: {test_set.name} has {available} frames a '
        'sample'
      )
    test_set = dataclasses.replace(
      test_set, images=test_set.images[:, :time_steps]
    )
  steps = dataclasses.replace(
    steps, model=steps.model.clone(time_steps=time_steps)
  )
  evaluator = loop.Evaluator(steps, parallel, test_set, config.eval_batch_size)
  return {
    'step': step,
    'checkpoint': which,
    'time_steps': time_steps,
    **evaluator(state.eval_variables),
    'split_name': test_set.split_name,
  }
