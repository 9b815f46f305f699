"""A training run from top to bottom: what `python train.py` does."""

import collections
import contextlib
import functools
import importlib.metadata
import math
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping

import jax
import ml_collections
import numpy as np

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import (
  configured_data,
  processes,
  ranking,
  stop_signals,
)
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.activity_log import ActivityLog
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.evaluation import make_evaluator
from mlf_jax.training.initial_weights import with_weights_of
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.logging import MetricsLog, Progress, TrainLogger
from mlf_jax.training.longer_run import require_extendable
from mlf_jax.training.optimizer import make_optimizer, make_schedule
from mlf_jax.training.sharding import AXIS, DataParallel
from mlf_jax.training.state import TrainState, init_state
from mlf_jax.training.step import train_step

# The host may run ahead of the devices by this many steps: enough to keep them
# busy, and few enough for the memory of their batches not to matter.
_STEPS_IN_FLIGHT = 8
# The packages that decide the numbers of a run.
_PACKAGES = ('mlf_jax', 'jax', 'jaxlib', 'flax', 'optax')


class Interrupted(Exception):
  """The run was asked to stop, saved its state and stopped.

  Attributes:
    signal_number: the signal that asked.
  """

  def __init__(self, message: str, signal_number: int):
    """Takes the line to print and the signal."""
    super().__init__(message)
    self.signal_number = signal_number


class Diverged(UserError):
  """Too many steps in a row had numbers that are not finite."""


def train(
  config: ml_collections.ConfigDict,
  dataset: data.Dataset | None = None,
  workdir: str | os.PathLike = '',
) -> dict:
  """Trains a network, or continues where an earlier call stopped.

      dataset = data.from_arrays(images, labels, test_images, test_labels)
      config = default_config(data='arrays')
      config.num_epochs = 10
      result = train(config, dataset)

  Args:
    config: the configuration.
    dataset: arrays of your own, for a configuration that starts from
      `default_config(data='arrays')` or, for event frames,
      `default_config(data='frame_arrays')`; by default the data set that the
      configuration names.
    workdir: directory of the run; by default one under `runs/` that belongs to
      this configuration and data.

  Returns:
    The content of `result.json`.

  Raises:
    UserError: the configuration, the data or the directory is wrong.
    Diverged: too many steps in a row were not finite.
    Interrupted: SIGINT or SIGTERM arrived; the state is saved.
  """
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      'the config must be a ConfigDict, of default_config(...) for instance, '
      f'got {type(config).__name__}: train(config, dataset, workdir)'
    )
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.enable_x64(config_lib.is_float64(config)))
    if not processes.is_first():
      # Only the first process reports; errors go to stderr from all of them.
      devnull = stack.enter_context(open(os.devnull, 'w'))
      stack.enter_context(contextlib.redirect_stdout(devnull))
    try:
      return _train(config, dataset, workdir)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise UserError(
        'the training step needs more memory than there is: '
        "config.memory='smallest', a smaller config.batch_size or smaller "
        'samples help; `python -m mlf_jax memory` predicts how much it needs'
      ) from error


def _train(config, dataset, workdir):
  # --- Configuration and network: mistakes show before any download ---
  parallel = DataParallel(config.get('parallel', ''))
  processes.require_same(
    {f'config.{k}': v for k, v in config_lib.flatten(config).items()}
    | {'--workdir': os.fspath(workdir)}
    | {f'the version of {name}': v for name, v in versions().items()}
  )
  config_lib.validate(config, parallel.num_devices)
  dataset = processes.on_all(
    lambda: configured_data.own_samples(config, dataset)
  )
  sample_shape, num_classes = configured_data.sample_spec(config, dataset)
  model = config_lib.build_model(config, num_classes, AXIS)
  config = configured_data.with_digest(config, dataset)
  workdir = workdir or workdir_lib.default_workdir(config)
  workdir = pathlib.Path(workdir).expanduser()
  result = processes.on_first(
    lambda: workdir_lib.finished_result(workdir, config)
  )
  if result is not None:
    print(
      f'{workdir} is finished: {_accuracy_line(result)}; remove it to train '
      'again'
    )
    return result

  # --- Data, optimiser and first state: no directory yet ---
  dataset = processes.on_all(
    lambda: configured_data.load_dataset(config, dataset)
  )
  processes.require_same(
    {
      f'the {name} set': f'{len(split):,} samples, {split.label_hash}'
      for name, split in dataset.splits.items()
    }
  )
  timeline = Timeline(
    config, data.steps_per_epoch(dataset.train, config.batch_size)
  )
  processes.on_first(
    lambda: require_extendable(workdir, config, timeline.steps_per_epoch)
  )
  optimizer = make_optimizer(
    config, make_schedule(config, timeline.steps_per_epoch, timeline.num_steps)
  )
  state = init_state(
    model, optimizer, config.seed, sample_shape, config.ema_decay > 0
  )
  store_path = workdir / 'checkpoints'
  if config.init_from and not processes.on_first(
    lambda: bool(CheckpointStore(store_path).steps())
  ):
    state = with_weights_of(state, config.init_from, num_classes)
  state = parallel.replicate(state)

  with contextlib.ExitStack() as stack:
    # --- Directory and checkpoints ---
    result = processes.on_first(
      lambda: stack.enter_context(workdir_lib.claimed_workdir(workdir, config))
    )
    if result is not None:  # Another run has just finished it.
      return result
    processes.on_first(
      lambda: workdir_lib.write_preprocessing(workdir, dataset.preprocessing)
    )
    processes.on_all(lambda: workdir_lib.require_visible(workdir))
    warnings: list[str] = []
    store = stack.enter_context(
      CheckpointStore(store_path, config.keep_checkpoints, warnings.append)
    )

    # --- Continue from the last checkpoint, and the log up to it ---
    restored = store.restore(state)
    for line in warnings:
      print(f'warning: {line}')
    start_step, stored = 0, {}
    if restored is not None:
      start_step, state, stored = restored
      print(f'continuing from step {start_step} in {workdir}')
    elif ranking.evaluations(workdir):
      print(f'warning: no checkpoint in {workdir}: training anew from step 0')
    log = processes.on_all(
      lambda: (
        stack.enter_context(contextlib.closing(MetricsLog(workdir, start_step)))
        if processes.is_first()
        else None
      )
    )
    began = time.monotonic() - stored.get('wall_seconds', 0.0)

    # --- Compile the training step ---
    num_parameters = state.num_parameters
    devices = f'device{"s" * (parallel.num_devices > 1)}'
    if jax.process_count() > 1:
      devices += f' of {jax.process_count()} processes'
    held_out = ''
    if dataset.validation is not None:
      held_out = f'and {len(dataset.validation):,} validation '
    print(
      f'{config.model.name} with {num_parameters:,} parameters, '
      f'T = {config.model.time_steps}\n'
      f'{dataset.name}, split {dataset.split_name}: {len(dataset.train):,} '
      f'training {held_out}and {len(dataset.test):,} test samples\n'
      f'{timeline.num_steps:,} steps of {config.batch_size} samples on '
      f'{parallel.num_devices} {jax.devices()[0].device_kind} {devices}; '
      f'output in {workdir}\n'
      'compiling the training step ...',
      flush=True,
    )

    def batch_of(step):
      batch = data.train_batch(
        dataset.train,
        config.batch_size,
        config.seed,
        step - 1,
        with_partners=data.needs_partners(config.augment),
        rows=parallel.rows(config.batch_size),
      )
      seed = np.uint32(config.seed % 2**32)  # What `jax.random.key` looks at.
      batch['seed'] = np.full(len(batch['label']), seed)
      return parallel.shard_batch(batch)

    normalize = configured_data.normalizer(config, dataset)
    compile_began = time.monotonic()
    step_fn = functools.partial(
      train_step,
      model=model,
      optimizer=optimizer,
      config=config,
      normalize=normalize,
    )
    compiled_step = (
      parallel.parallelize(step_fn, donate=True)
      .lower(state, batch_of(1))
      .compile()
    )
    compile_seconds = time.monotonic() - compile_began
    print(f'compiled in {compile_seconds:.1f} s', flush=True)
    evaluator = make_evaluator(config, model, dataset, parallel)

    # --- Train ---
    progress = stack.enter_context(Progress(timeline.num_steps, start_step))
    activity_log = ActivityLog(
      config, model, normalize, sample_shape, parallel, log, progress.say
    )
    # A hidden transfer between host and devices, which would slow every step
    # down, is an error.
    stack.enter_context(jax.transfer_guard('disallow'))
    state, test_metrics = train_loop(
      state,
      start_step,
      timeline=timeline,
      train_step=lambda state, step: compiled_step(state, batch_of(step)),
      evaluate=lambda state: evaluator(state.eval_variables),
      store=store,
      logger=TrainLogger(log, progress, timeline, config.batch_size, stored),
      log_activity=lambda state, step: activity_log.write(
        step, timeline.epoch(step), state, batch_of(step)
      ),
      max_skipped_steps=config.max_skipped_steps,
      agreed_stop=stop_signals.AgreedStop(
        stack.enter_context(stop_signals.received_signals()),
        parallel,
        _STEPS_IN_FLIGHT,
      ),
      wall_seconds=lambda: time.monotonic() - began,
    )

    # --- Result ---
    result = {
      **test_metrics,
      'steps': timeline.num_steps,
      'skipped_steps': int(jax.device_get(state.skipped_steps)),
      'parameters': num_parameters,
      'wall_seconds': time.monotonic() - began,
      'compile_seconds': compile_seconds,
      'data': dataset.name,
      'split_name': dataset.split_name,
      'split_hash': {
        name: split.split_hash for name, split in dataset.splits.items()
      },
      **{f'{name}_samples': len(s) for name, s in dataset.splits.items()},
      **({'classes': dataset.class_names} if dataset.class_names else {}),
      'seed': config.seed,
      'device': jax.devices()[0].device_kind,
      'num_devices': parallel.num_devices,
      'num_processes': jax.process_count(),
      'versions': versions(),
    }
    result = processes.on_first(
      lambda: workdir_lib.write_result(workdir, result)
    )
    progress.say(
      f'finished in {result["wall_seconds"]:.0f} s: {_accuracy_line(result)}; '
      f'result in {workdir / "result.json"}'
    )
    return result


def versions() -> dict[str, str]:
  """Versions of Python and of the packages that decide the numbers of a run."""
  return {'python': platform.python_version()} | {
    name: importlib.metadata.version(name) for name in _PACKAGES
  }


def train_loop(
  state: TrainState,
  start_step: int,
  *,
  timeline: Timeline,
  train_step: Callable[[TrainState, int], tuple[TrainState, Mapping]],
  evaluate: Callable[[TrainState], dict[str, float]],
  store: CheckpointStore,
  logger: TrainLogger,
  log_activity: Callable[[TrainState, int], None],
  max_skipped_steps: int,
  agreed_stop: Callable[[], int],
  wall_seconds: Callable[[], float],
) -> tuple[TrainState, dict[str, float]]:
  """Trains from a step to the end, with evaluations and checkpoints between.

  Args:
    state: state after `start_step`.
    start_step: training steps done.
    timeline: says which steps an evaluation follows, and which is the last.
    train_step: maps the state and the number of the step to the next state and
      its metrics, which may still be under way on the devices.
    evaluate: returns the test metrics of a state.
    store: gets the checkpoints.
    logger: gets the metrics of every step once it is done.
    log_activity: looks inside the network after steps that the timeline says.
    max_skipped_steps: skipped steps in a row after which training stops.
    agreed_stop: asked after every step; returns the number of a signal if the
      loop should end, else 0.
    wall_seconds: returns the seconds spent on the run, for the checkpoints.

  Returns:
    The last state and its test metrics.

  Raises:
    Diverged: too many steps in a row were not finite.
    Interrupted: a signal arrived; the state is saved.
  """
  in_flight = collections.deque()
  skipped_in_row, test_metrics = 0, None
  # Several processes have to stop at the same step, so that none may see a
  # metric before the others do.
  alone = jax.process_count() == 1

  def log_steps(most_in_flight):
    """Logs, in order, the steps that are done or that must not wait longer."""
    nonlocal skipped_in_row
    while in_flight and (
      len(in_flight) > most_in_flight
      or (alone and all(value.is_ready() for value in in_flight[0][1].values()))
    ):
      step, metrics = in_flight.popleft()
      metrics = jax.device_get(metrics)  # Waits until the step is done.
      logger.add_step(step, metrics)
      skipped_in_row = int(metrics['skipped_in_row'])
      if skipped_in_row >= max_skipped_steps:
        logger.write_line(step)
        raise _diverged(step, skipped_in_row, store)

  def save(step, test_metrics):
    logger.flush()
    stored = {'wall_seconds': wall_seconds(), **logger.partial_sums}
    with jax.transfer_guard('allow'):
      store.save(step, state, {**test_metrics, **stored})

  for step in range(start_step + 1, timeline.num_steps + 1):
    # --- Dispatch the step ---
    if not in_flight:
      logger.start_clock()
    state, metrics = train_step(state, step)
    in_flight.append((step, metrics))
    log_steps(_STEPS_IN_FLIGHT)

    # --- Look inside ---
    if timeline.is_activity_step(step):
      log_steps(0)
      log_activity(state, step)
      logger.start_clock()

    # --- Evaluate and save ---
    if timeline.is_eval(step):
      log_steps(0)
      test_metrics = evaluate(state)
      logger.add_evaluation(step, test_metrics)
      # A state that is not finite must not push out a good checkpoint.
      if step == timeline.num_steps or (
        math.isfinite(test_metrics['test/loss']) and not skipped_in_row
      ):
        save(step, test_metrics)

    # --- Stop on a signal ---
    signal_number = agreed_stop()
    if signal_number and step < timeline.num_steps:
      log_steps(0)
      # After an evaluation it has been decided whether to save.
      if not skipped_in_row and not timeline.is_eval(step):
        save(step, {})
      store.wait()
      saved = [s for s in store.steps() if s <= step][-1:] or [0]
      raise Interrupted(
        f'interrupted at step {step}; the same command continues from step '
        f'{saved[0]}',
        signal_number,
      )

  store.wait()
  if test_metrics is None:  # The last checkpoint was there, its result was not.
    test_metrics = evaluate(state)
  return state, test_metrics


def _diverged(step, skipped_in_row, store):
  last_good = 'there is no checkpoint yet'
  if good := store.steps():
    last_good = (
      f'the last good checkpoint is step {good[-1]} in {store.directory}'
    )
  return Diverged(
    f'{skipped_in_row} steps in a row had a loss, gradient or update that is '
    f'not finite, up to step {step}; {last_good}; a lower '
    'config.optimizer.learning_rate or a config.optimizer.clip_norm helps'
  )


def _accuracy_line(result):
  return (
    f'test/accuracy {result["test/accuracy"]:.4f} '
    f'(best {result["best/test/accuracy"]:.4f} at step {result["best/step"]}, '
    f'chosen on the {result["best/chosen_on"]})'
  )
