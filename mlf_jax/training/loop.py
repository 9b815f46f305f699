"""A training run, from a configuration to `result.json`."""

import collections
import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import optimizer as optimizer_lib
from mlf_jax.training import report
from mlf_jax.training import state as state_lib
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.parallel import AXIS, DataParallel
from mlf_jax.training.step import Steps

# Steps that the host may run ahead of the devices: enough to keep them busy,
# few enough for the batches on their way to need no memory to speak of.
_STEPS_AHEAD = 8


class Interrupted(Exception):
  """The run was asked to stop, saved its state and stopped.

  Attributes:
    signal_number: what asked.
  """

  def __init__(self, message: str, signal_number: int):
    """Takes the line to print and the signal."""
    super().__init__(message)
    self.signal_number = signal_number


def train(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike = ''
) -> dict:
  """Trains a network, or goes on where an earlier call stopped.

  Args:
    config: the configuration.
    workdir: directory of the run; empty: one under `runs/` that belongs to
      this configuration.

  Returns:
    The content of `result.json`.

  Raises:
    UserError: the configuration, the data or the directory cannot be right, or
      too many steps in a row were not finite.
    Interrupted: SIGINT or SIGTERM arrived; the state is saved.
  """
  with jax.enable_x64(config.model.get('dtype') == 'float64'):
    return _train(config, workdir)


def _train(config, workdir):
  parallel = DataParallel(config.get('parallel', ''))
  config_lib.validate(config, parallel.num_devices)
  workdir = pathlib.Path(workdir or workdir_lib.default(config))
  result = workdir_lib.check(workdir, config)
  if result is not None:
    print(
      f'{workdir} is finished: {_accuracy_line(result)}; remove it to train '
      'again'
    )
    return result

  # Data and model first: a mistake there leaves no directory behind.
  train_set, test_set = (
    data.load(
      config.data.name,
      split,
      data_dir=config.data.dir,
      manual_dir=config.data.manual_dir,
    )
    for split in ('train', 'test')
  )
  schedule = Schedule(config, train_set)
  steps = make_steps(config, train_set, schedule)
  state = jax.device_put(
    init_state(steps, config, train_set), parallel.replicated
  )

  with contextlib.ExitStack() as stack:
    stack.enter_context(workdir_lib.claim(workdir, config))
    return _run(
      stack,
      config,
      workdir,
      parallel,
      schedule,
      steps,
      state,
      train_set,
      test_set,
    )


class Schedule:
  """Which step is what in a run; the first step is 1."""

  def __init__(
    self, config: ml_collections.ConfigDict, train_set: data.Dataset
  ):
    """Takes the length of an epoch from the data set."""
    self.steps_per_epoch = data.steps_per_epoch(train_set, config.batch_size)
    self.num_steps = (
      config.num_steps or config.num_epochs * self.steps_per_epoch
    )
    self._log_every = config.log_every
    self._eval_every = max(
      1, round(config.eval_every_epochs * self.steps_per_epoch)
    )

  def is_eval(self, step):
    """Whether evaluation and a checkpoint follow a step."""
    return (step % self._eval_every == 0) | (step == self.num_steps)

  def is_line(self, step):
    """Whether a line of metrics ends with a step."""
    return (step % self._log_every == 0) | self.is_eval(step)

  def epoch(self, step: int) -> int:
    """Number of the epoch a step belongs to; the first is 1."""
    return (step - 1) // self.steps_per_epoch + 1


def make_steps(
  config: ml_collections.ConfigDict,
  train_set: data.Dataset,
  schedule: Schedule,
  axis_name: str | None = AXIS,
) -> Steps:
  """The steps of a run."""
  dtype = 'float64' if config.model.dtype == 'float64' else 'float32'
  return Steps(
    model=config_lib.make_model(config, train_set.num_classes, axis_name),
    optimizer=optimizer_lib.make_optimizer(
      config,
      optimizer_lib.make_schedule(
        config, schedule.steps_per_epoch, schedule.num_steps
      ),
    ),
    config=config,
    normalize=functools.partial(
      data.normalize,
      scale=train_set.scale,
      mean=train_set.mean,
      std=train_set.std,
      dtype=dtype,
    ),
    is_line=schedule.is_line,
  )


def init_state(
  steps: Steps, config: ml_collections.ConfigDict, train_set: data.Dataset
) -> state_lib.TrainState:
  """State before the first step of a run."""
  return state_lib.init_state(
    steps.model,
    steps.optimizer,
    config.seed,
    train_set.images.shape[1:],
    ema=config.ema_decay > 0,
  )


def _run(
  stack, config, workdir, parallel, schedule, steps, state, train_set, test_set
):
  """The loop, in a directory that is this process's own."""
  progress_lines = []
  store = stack.enter_context(
    CheckpointStore(
      workdir / 'checkpoints', config.keep_checkpoints, progress_lines.append
    )
  )
  log = stack.enter_context(contextlib.closing(report.MetricsLog(workdir)))
  start_step, seconds_before = 0, 0.0
  restored = store.restore(state)
  for line in progress_lines:
    print(f'warning: {line}')
  if restored is not None:
    start_step, state, metrics = restored
    seconds_before = (metrics or {}).get('wall_seconds', 0.0)
  log.resume(start_step)
  if start_step:
    print(f'continuing from step {start_step} in {workdir}')
  began = time.monotonic()

  num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(
    f'{config.model.name} with {num_parameters:,} parameters, '
    f'T = {config.model.time_steps}, on {parallel.num_devices} '
    f'{jax.devices()[0].device_kind} device(s); {len(train_set):,} training '
    f'and {len(test_set):,} test samples of {train_set.name} '
    f'(split {train_set.split_name}); {schedule.num_steps:,} steps; '
    f'output in {workdir}'
  )
  batch_at = functools.partial(
    data.train_batch, train_set, config.batch_size, config.seed
  )
  print('compiling the training step ...', flush=True)
  compile_began = time.monotonic()
  train_step = (
    parallel.map(steps.train, donate=True)
    .lower(state, parallel.put(batch_at(0)))
    .compile()
  )
  compile_seconds = time.monotonic() - compile_began
  print(f'compiled in {compile_seconds:.1f} s', flush=True)
  evaluate = Evaluator(steps, parallel, test_set, config.eval_batch_size)

  stop = stack.enter_context(_stop_signals())
  progress = stack.enter_context(
    report.Progress(schedule.num_steps, start_step)
  )
  best = workdir_lib.best(workdir)
  meter = _Meter(schedule, config, log, progress, store, start_step)
  in_flight = collections.deque()
  test_metrics = None
  for step in range(start_step + 1, schedule.num_steps + 1):
    state, metrics = train_step(state, parallel.put(batch_at(step - 1)))
    in_flight.append(metrics)
    if len(in_flight) > _STEPS_AHEAD:
      jax.block_until_ready(in_flight.popleft())
    if schedule.is_eval(step):
      jax.block_until_ready(metrics)
      trained_at = time.monotonic()
      test_metrics = evaluate(state.eval_variables)
      meter.add(step, metrics, test_metrics, trained_at)
      # On disk before the checkpoint that makes a resumed run skip them.
      meter.drain()
      log.flush()
      if best is None or test_metrics['test/accuracy'] >= best[1]:
        best = step, test_metrics['test/accuracy']
      wall_seconds = seconds_before + time.monotonic() - began
      store.save(step, state, {**test_metrics, 'wall_seconds': wall_seconds})
      meter.restart_clock()
    elif schedule.is_line(step):
      meter.add(step, metrics)
    meter.write_ready()
    if stop and step < schedule.num_steps:
      meter.drain()
      log.flush()
      wall_seconds = seconds_before + time.monotonic() - began
      store.save(step, state, {'wall_seconds': wall_seconds})
      store.wait()
      raise Interrupted(
        f'interrupted and saved at step {step}; the same command continues',
        stop[0],
      )
  store.wait()

  if test_metrics is None:  # The last checkpoint was there, its result not.
    test_metrics = evaluate(state.eval_variables)
  result = {
    **test_metrics,
    'best/step': best[0],
    'best/test/accuracy': best[1],
    'steps': schedule.num_steps,
    'skipped_steps': int(state.skipped_steps),
    'parameters': num_parameters,
    'wall_seconds': seconds_before + time.monotonic() - began,
    'compile_seconds': compile_seconds,
    'data': train_set.name,
    'split_name': train_set.split_name,
    'split_hash': {s.split: s.split_hash for s in (train_set, test_set)},
    'train_samples': len(train_set),
    'test_samples': len(test_set),
    'seed': config.seed,
    'device': jax.devices()[0].device_kind,
    'num_devices': parallel.num_devices,
    'versions': versions(),
  }
  report.write_json(workdir / 'result.json', result)
  progress.say(
    f'finished in {result["wall_seconds"]:.0f} s: {_accuracy_line(result)}; '
    f'result in {workdir / "result.json"}'
  )
  return json.loads((workdir / 'result.json').read_text())


def _accuracy_line(result):
  return (
    f'test/accuracy {result["test/accuracy"]:.4f} '
    f'(best {result["best/test/accuracy"]:.4f} at step {result["best/step"]})'
  )


def versions() -> dict[str, str]:
  """Versions of what decides the numbers of a run."""
  return {'python': platform.python_version()} | {
    name: importlib.metadata.version(name)
    for name in ('mlf_jax', 'jax', 'jaxlib', 'flax', 'optax')
  }


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
    sums = jax.device_get(sums)
    assert sums['count'] == len(self._dataset), 'each sample exactly once'
    return {
      'test/loss': float(sums['loss'] / sums['count']),
      'test/accuracy': float(sums['correct'] / sums['count']),
    }


class _Meter:
  """Writes lines of metrics once the device has them, never waiting for it."""

  def __init__(self, schedule, config, log, progress, store, start_step):
    self._schedule = schedule
    self._config = config
    self._log = log
    self._progress = progress
    self._store = store
    self._pending = collections.deque()
    self._last_step = start_step
    self.restart_clock()

  def restart_clock(self):
    """Leaves what happened since the last line out of the speed."""
    self._last_time = time.monotonic()

  def add(self, step, metrics, test_metrics=None, trained_at=None):
    """Announces a line; its numbers may still be computed."""
    self._pending.append((step, metrics, test_metrics or {}, trained_at))

  def write_ready(self):
    """Writes the lines that can be written without waiting."""
    while self._pending and all(
      value.is_ready() for value in self._pending[0][1].values()
    ):
      self._write(*self._pending.popleft())

  def drain(self):
    """Writes all lines."""
    while self._pending:
      self._write(*self._pending.popleft())

  def _write(self, step, metrics, test_metrics, trained_at):
    metrics = {k: v.item() for k, v in jax.device_get(metrics).items()}
    in_row = metrics.pop('skipped_in_row')
    now = trained_at or time.monotonic()
    speed = (
      (step - self._last_step)
      * self._config.batch_size
      / max(now - self._last_time, 1e-9)
    )
    self._last_step, self._last_time = step, now
    epoch = self._schedule.epoch(step)
    self._log.write(
      step,
      epoch,
      {**metrics, **test_metrics, 'train/samples_per_second': speed},
    )
    self._progress.update(
      step, epoch, metrics['train/loss'], metrics['train/accuracy'], speed
    )
    if test_metrics:
      self._progress.say(
        f'step {step}  epoch {epoch}  '
        f'test/loss {test_metrics["test/loss"]:.4f}  '
        f'test/accuracy {test_metrics["test/accuracy"]:.4f}'
      )
    limit = self._config.max_skipped_steps
    if in_row >= limit:
      self._log.flush()
      good = self._store.steps()
      last_good = (
        f'the last good checkpoint is step {good[-1]} in '
        f'{self._store.directory}'
        if good
        else 'there is no checkpoint yet'
      )
      raise UserError(
        f'{limit} steps in a row had a loss or gradient that is not finite, up '
        f'to step {step - (in_row - limit)}; {last_good}; a lower '
        'config.optimizer.learning_rate or a config.optimizer.clip_norm helps'
      )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM; a second one has its usual effect."""
  received: list[int] = []

  def receive(number, frame):
    del frame
    received.append(number)
    signal.signal(number, before[number])

  before = {}
  try:
    for number in (signal.SIGINT, signal.SIGTERM):
      before[number] = signal.signal(number, receive)
  except ValueError:  # Not the main thread: the caller handles signals.
    pass
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
