"""Loss and accuracy of a network on a whole data set."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import run as run_lib
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.parallel import DataParallel
from mlf_jax.training.state import TrainState
from mlf_jax.training.step import Steps


class Evaluator:
  """Loss and accuracy of a whole data set."""

  def __init__(
    self,
    steps: Steps,
    parallel: DataParallel,
    dataset: data.Dataset,
    batch_size: int,
  ):
    """Takes what to evaluate on."""
    self._step = parallel.map(steps.evaluate)
    self._parallel = parallel
    self._dataset = dataset
    self._batch_size = batch_size

  def __call__(self, variables: dict) -> dict[str, float]:
    """Evaluates `variables`, `params` and `batch_stats`."""
    sums = None
    for batch in data.eval_batches(self._dataset, self._batch_size):
      new = self._step(variables, self._parallel.put(batch))
      sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
    # Python's floats: whole numbers are exact, and so the accuracy is.
    sums = {name: float(value) for name, value in sums.items()}
    assert sums['count'] == len(self._dataset), 'each sample exactly once'
    return {
      'test/loss': sums['loss'] / sums['count'],
      'test/accuracy': sums['correct'] / sums['count'],
    }


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
  workdir = pathlib.Path(workdir).expanduser()
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


def restore(
  workdir: pathlib.Path,
  run: run_lib.Run,
  which: str = 'best',
  sharding: jax.sharding.Sharding | None = None,
) -> tuple[int, TrainState]:
  """Reads a checkpoint of a run in whose directory nothing is changed.

  Args:
    workdir: directory of the run.
    run: the run, as its configuration says.
    which: 'best' or 'last'.
    sharding: where the state is put; by default where JAX puts arrays.

  Returns:
    Number of training steps and the state after them.

  Raises:
    UserError: no checkpoint, or none that can be read.
  """
  template = jax.eval_shape(lambda: run_lib.init_state(run))
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    template,
  )
  # A training process may be writing there: nothing is moved.
  with CheckpointStore(workdir / 'checkpoints', move_corrupt=False) as store:
    restored = store.restore(template, which)
  if restored is None:
    raise UserError(f'{workdir} has no checkpoint yet')
  step, state, _ = restored
  return step, state


def _evaluate(workdir, config, which, time_steps):
  parallel = DataParallel(config.parallel)
  # A run of other devices may have had batches these cannot share evenly.
  n = parallel.num_devices
  config.eval_batch_size = -(-config.eval_batch_size // n) * n
  run = run_lib.load(config)
  step, state = restore(workdir, run, which, parallel.replicated)

  if time_steps is None:
    time_steps = config.model.time_steps
  test_set = run.test_set
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
    run.steps, model=run.steps.model.clone(time_steps=time_steps)
  )
  evaluator = Evaluator(steps, parallel, test_set, config.eval_batch_size)
  return {
    'step': step,
    'checkpoint': which,
    'time_steps': time_steps,
    **evaluator(state.eval_variables),
    'split_name': test_set.split_name,
  }
