"""A training run, from a configuration to `result.json`."""

import collections
import contextlib
import functools
import importlib.metadata
import math
import os
import pathlib
import platform
import signal
import time
from collections.abc import Iterator

import jax
import ml_collections

from mlf_jax import data
from mlf_jax.training import augmentation, report
from mlf_jax.training import config as config_lib
from mlf_jax.training import run as run_lib
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.evaluation import Evaluator
from mlf_jax.training.meter import Meter
from mlf_jax.training.parallel import DataParallel

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
  workdir = pathlib.Path(workdir or workdir_lib.default(config)).expanduser()
  result = workdir_lib.check(workdir, config)
  if result is not None:
    print(
      f'{workdir} is finished: {_accuracy_line(result)}; remove it to train '
      'again'
    )
    return result

  # Data and model first: a mistake there leaves no directory behind.
  run = run_lib.load(config)
  state = jax.device_put(run_lib.init_state(run), parallel.replicated)
  with contextlib.ExitStack() as stack:
    result = stack.enter_context(workdir_lib.claim(workdir, config))
    if result is not None:  # Another process has just finished it.
      return result
    return _run(stack, run, workdir, parallel, state)


def _run(stack, run, workdir, parallel, state):
  """The run, in a directory that is this process's own."""
  config, schedule = run.config, run.schedule
  warnings: list[str] = []
  store = stack.enter_context(
    CheckpointStore(
      workdir / 'checkpoints', config.keep_checkpoints, warnings.append
    )
  )
  log = stack.enter_context(contextlib.closing(report.MetricsLog(workdir)))

  # --- Where an earlier call stopped ---
  start_step, seconds_before = 0, 0.0
  restored = store.restore(state)
  for line in warnings:
    print(f'warning: {line}')
  if restored is not None:
    start_step, state, metrics = restored
    seconds_before = (metrics or {}).get('wall_seconds', 0.0)
  elif workdir_lib.best(workdir) is not None:
    print(f'warning: no checkpoint in {workdir}: training anew from step 0')
  log.resume(start_step)
  if start_step:
    print(f'continuing from step {start_step} in {workdir}')
  began = time.monotonic()

  def wall_seconds():
    return seconds_before + time.monotonic() - began

  # --- Compilation ---
  print(_introduction(run, parallel, state, workdir), flush=True)
  batch_at = functools.partial(
    data.train_batch,
    run.train_set,
    config.batch_size,
    config.seed,
    with_partners=augmentation.mixes(config),
  )
  print('compiling the training step ...', flush=True)
  train_step = (
    parallel.map(run.steps.train, donate=True)
    .lower(state, parallel.put(batch_at(0)))
    .compile()
  )
  compile_seconds = time.monotonic() - began
  print(f'compiled in {compile_seconds:.1f} s', flush=True)
  evaluate = Evaluator(
    run.steps, parallel, run.test_set, config.eval_batch_size
  )

  # --- Training ---
  stop = stack.enter_context(_stop_signals())
  progress = stack.enter_context(
    report.Progress(schedule.num_steps, start_step)
  )
  meter = Meter(run, log, progress, store, start_step)
  in_flight = collections.deque()
  test_metrics = None
  for step in range(start_step + 1, schedule.num_steps + 1):
    state, metrics = train_step(state, parallel.put(batch_at(step - 1)))
    in_flight.append(metrics)
    if len(in_flight) > _STEPS_AHEAD:
      jax.block_until_ready(in_flight.popleft())
      progress.advance(step - _STEPS_AHEAD)

    if schedule.is_eval(step):
      jax.block_until_ready(metrics)
      meter.drain()
      trained_at = time.monotonic()
      test_metrics = evaluate(state.eval_variables)
      meter.add(step, metrics, test_metrics, trained_at)
      # On disk before the checkpoint that makes a resumed run skip them.
      meter.drain()
      log.flush()
      # Never in the place of a good one: where it came from cannot be trained.
      if step == schedule.num_steps or (
        math.isfinite(test_metrics['test/loss'])
        and not metrics['skipped_in_row']
      ):
        store.save(
          step, state, {**test_metrics, 'wall_seconds': wall_seconds()}
        )
      meter.restart_clock()
    elif schedule.is_line(step):
      meter.add(step, metrics)
    meter.write_ready()

    if stop and step < schedule.num_steps:
      meter.drain()
      log.flush()
      if not metrics['skipped_in_row']:
        store.save(step, state, {'wall_seconds': wall_seconds()})
      store.wait()
      saved = [s for s in store.steps() if s <= step][-1:] or [0]
      raise Interrupted(
        f'interrupted at step {step}; the same command continues from step '
        f'{saved[0]}',
        stop[0],
      )
  store.wait()

  # --- Result ---
  if test_metrics is None:  # The last checkpoint was there, its result not.
    test_metrics = evaluate(state.eval_variables)
  best_step, best_accuracy = max(
    workdir_lib.best(workdir) or (0, 0.0),
    (schedule.num_steps, test_metrics['test/accuracy']),
    key=lambda evaluated: evaluated[::-1],
  )
  result = {
    **test_metrics,
    'best/step': best_step,
    'best/test/accuracy': best_accuracy,
    'steps': schedule.num_steps,
    'skipped_steps': int(state.skipped_steps),
    'parameters': _num_parameters(state),
    'wall_seconds': wall_seconds(),
    'compile_seconds': compile_seconds,
    'data': run.train_set.name,
    'split_name': run.train_set.split_name,
    'split_hash': {
      s.split: s.split_hash for s in (run.train_set, run.test_set)
    },
    'train_samples': len(run.train_set),
    'test_samples': len(run.test_set),
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
  return workdir_lib.read_json(workdir / 'result.json')


def _introduction(run, parallel, state, workdir):
  devices = 'device' if parallel.num_devices == 1 else 'devices'
  return (
    f'{run.config.model.name} with {_num_parameters(state):,} parameters, '
    f'T = {run.config.model.time_steps}\n'
    f'{run.train_set.name}, split {run.train_set.split_name}: '
    f'{len(run.train_set):,} training and {len(run.test_set):,} test samples\n'
    f'{run.schedule.num_steps:,} steps of {run.config.batch_size} samples on '
    f'{parallel.num_devices} {jax.devices()[0].device_kind} {devices}; '
    f'output in {workdir}'
  )


def _num_parameters(state):
  return sum(leaf.size for leaf in jax.tree.leaves(state.params))


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
