"""A whole run: what it writes, continues, refuses, and how it stops."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types
from unittest import mock

import chex
import jax
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.training import evaluate, restore, train, workdir
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.logging import TrainLogger
from mlf_jax.training.trainer import Interrupted, train_loop
from tests import quick
from tests.training import tiny

TIMINGS = {'train/samples_per_second'}


pytestmark = pytest.mark.usefixtures('quick_compilation')


def metrics(directory):
  """Lines of metrics.jsonl without what is a timing."""
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k not in TIMINGS}
    for line in lines
  ]


def assert_same_run(one, other):
  """Bit for bit: every metric but timings, parameters, momentum, the rest."""
  assert metrics(one) == metrics(other)
  states = [restore(directory, 'last') for directory in (one, other)]
  assert states[0].step == states[1].step
  chex.assert_trees_all_equal(*(s.state for s in states), strict=True)


@pytest.fixture
def unfinished(copied):
  """All of that run but its result."""
  (copied / 'result.json').unlink()
  return copied


def damage(checkpoint):
  for path in checkpoint.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_outputs(finished):
  directory, result = finished
  assert {p.name for p in directory.iterdir()} == {
    '.lock',
    'config.json',
    'preprocessing.json',
    'metrics.jsonl',
    'tensorboard',
    'checkpoints',
    'result.json',
  }
  lines = metrics(directory)
  # A line every second step, an evaluation every third and at the end.
  assert [line['step'] for line in lines] == [2, 3, 4, 6]
  evaluated = [line['step'] for line in lines if 'test/accuracy' in line]
  assert evaluated == [3, 6]
  for line in lines:
    assert line['epoch'] == 1 and line['train/skipped_steps'] == 0
    assert line['train/loss'] > 0 and 0 <= line['train/accuracy'] <= 1
    assert line['train/learning_rate'] == pytest.approx(0.1)
  assert any((directory / 'tensorboard').iterdir())
  assert result == json.loads((directory / 'result.json').read_text())
  assert result['test/accuracy'] == lines[-1]['test/accuracy']
  best = max((x['test/accuracy'], x['step']) for x in lines if 'test/loss' in x)
  assert (result['best/test/accuracy'], result['best/step']) == best
  digits = data.load('digits')
  assert (result['data'], result['seed']) == ('digits', 0)
  assert result['split_name'] == digits.split_name
  assert result['split_hash']['test'] == digits.test.split_hash
  assert result['versions']['jax'] == jax.__version__
  assert result['parameters'] == restore(directory).state.num_parameters


def test_finished_run_says_so_and_does_not_train_again(finished, capsys):
  directory, result = finished
  before = (directory / 'metrics.jsonl').read_bytes()
  assert train(tiny.small(), workdir=directory) == result
  assert f'{directory} is finished: test/accuracy' in capsys.readouterr().out
  assert (directory / 'metrics.jsonl').read_bytes() == before


def test_directory_of_others_is_refused(finished, unfinished):
  changed = tiny.small(seed=1, unit__thresholds=(0.5,))
  with pytest.raises(UserError) as error:
    train(changed, workdir=finished[0])
  message = str(error.value)
  assert 'config.seed: 1 here, 0 there' in message
  assert 'config.unit.thresholds: [0.5] here, [0.6, 1.6] there' in message
  assert 'config.batch_size' not in message
  (unfinished / 'config.json').unlink()
  with pytest.raises(UserError, match='but no config'):
    train(tiny.small(), workdir=unfinished)


def test_directory_in_use_is_refused(tmp_path):
  config = tiny.small()
  with (
    workdir.claimed_workdir(tmp_path, config),
    pytest.raises(UserError, match='another process is training in'),
  ):
    train(config, workdir=tmp_path)


def test_mistake_in_data_or_network_leaves_no_directory(tmp_path):
  directory = tmp_path / 'run'
  for config, message in (
    (tiny.config(model__depth=9), 'depth must be 6n'),
    (tiny.config(batch_size=4000), 'between 1 and 1438'),
    (tiny.config(unit__thresholds=(1.6, 0.6)), 'strictly increasing'),
  ):
    with pytest.raises(UserError, match=message):
      train(config, workdir=directory)
    assert not directory.exists()


# --- Throughput ---


class Value:
  """A number on a device, there at some time of a clock that can be set."""

  def __init__(self, clock, done_at, value):
    self.clock, self.done_at, self.value = clock, done_at, value

  def is_ready(self):
    return self.clock.now >= self.done_at

  def __array__(self, dtype=None, copy=None):
    """To wait for it takes the time that is left."""
    self.clock.now = max(self.clock.now, self.done_at)
    return np.asarray(self.value, dtype)


@pytest.mark.parametrize('host_seconds', [0, 32])
def test_throughput_is_samples_by_the_time_of_their_steps(host_seconds):
  """Evaluations, checkpoints and looks inside are left out."""
  clock, lines, left = types.SimpleNamespace(now=0.0), {}, {}
  config = tiny.config(
    num_steps=66, log_every=19, log_activity_every=20, eval_every_epochs=1.0
  )
  timeline = Timeline(config, steps_per_epoch=22)
  seconds = lambda step: 1.0 + step % 4

  def train_step(free_at, step):
    """On a device that computes one step after the other; makes the batch."""
    clock.now += host_seconds
    free_at = max(clock.now, free_at) + seconds(step)
    metrics = {'loss': step, 'accuracy': 0.5, 'learning_rate': 0.1}
    metrics |= {'skipped_steps': 0, 'skipped_in_row': 0}
    return free_at, {
      name: Value(clock, free_at, value) for name, value in metrics.items()
    }

  def take_long(*_):
    clock.now += 1000.0
    return {'test/loss': 1.0, 'test/accuracy': 0.5}

  def save(*_):
    assert on_disk == list(lines)  # A crash could lose them otherwise.
    return take_long()

  log, progress, on_disk = mock.Mock(), mock.Mock(), []
  log.flush = lambda: on_disk.extend([s for s in lines if s not in on_disk])
  log.write = lambda step, epoch, scalars: lines.update({step: scalars})
  progress.update = lambda step, *values: left.update({step: values[-1]})
  logger = TrainLogger(
    log,
    progress,
    timeline,
    batch_size=64,
    clock=lambda: clock.now,
  )
  train_loop(
    0.0,
    0,
    timeline=timeline,
    train_step=train_step,
    evaluate=take_long,
    store=mock.Mock(save=save),
    logger=logger,
    log_activity=take_long,
    max_skipped_steps=3,
    agreed_stop=lambda: 0,
    wall_seconds=lambda: clock.now,
  )
  ends = [19, 22, 38, 44, 57, 66]
  assert list(lines) == ends
  for start, end in zip([0, *ends], ends, strict=False):
    steps = range(start + 1, end + 1)
    assert lines[end]['train/loss'] == pytest.approx(np.mean(steps))
    time_of_steps = len(steps) * 64 / lines[end]['train/samples_per_second']
    if host_seconds:
      # A step that is done while a batch is made is seen when that is made.
      expected = host_seconds * len(steps)
      assert time_of_steps == pytest.approx(expected, abs=host_seconds)
      continue
    assert time_of_steps == pytest.approx(sum(map(seconds, steps)))
    # What is left takes as long as what was done.
    mean = np.mean([seconds(step) for step in range(1, end + 1)])
    evaluations = len([s for s in (44, 66) if s > end]) if end >= 22 else 0
    expected = (66 - end) * mean + evaluations * 1000
    assert left[end] == pytest.approx(expected)


def test_a_hidden_transfer_is_an_error(tmp_path, monkeypatch):
  """An array of the host handed to a computation within the loop."""
  hidden = lambda self: jax.numpy.ones(2) + np.ones(2, np.float32)
  monkeypatch.setattr(TrainLogger, 'start_clock', hidden)
  with pytest.raises(
    jax.errors.JaxRuntimeError, match='Disallowed host-to-dev'
  ):
    train(tiny.small(), workdir=tmp_path)


# --- Interruptions ---


def long_config():
  return tiny.small(num_steps=40, eval_every_epochs=0.28)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  directory = tmp_path_factory.mktemp('uninterrupted')
  train(long_config(), workdir=directory)
  assert [line['step'] for line in metrics(directory)] == list(range(2, 41, 2))
  return directory


def test_interrupted_run_continues_bit_for_bit(
  tmp_path, uninterrupted, monkeypatch, capsys
):
  """Asked to stop twice between two checkpoints, in the middle of a line."""
  train_batch = data.train_batch
  signals = {14: signal.SIGTERM, 32: signal.SIGINT}

  def batch_and_signal(split, batch_size, seed, step, **options):
    if step in signals:
      signal.raise_signal(signals.pop(step))
    return train_batch(split, batch_size, seed, step, **options)

  monkeypatch.setattr(data, 'train_batch', batch_and_signal)
  for step, number in (15, signal.SIGTERM), (33, signal.SIGINT):
    with pytest.raises(Interrupted, match=f'interrupted at step {step}') as e:
      train(long_config(), workdir=tmp_path)
    assert f'the same command continues from step {step}' in str(e.value)
    assert e.value.signal_number == number
    assert not (tmp_path / 'result.json').exists()
  train(long_config(), workdir=tmp_path)
  output = capsys.readouterr().out
  assert 'continuing from step 33' in output and 'finished in' in output
  assert_same_run(tmp_path, uninterrupted)


def test_stopped_run_continues_on_other_numbers_of_devices(
  tmp_path, uninterrupted, monkeypatch
):
  """4 -> 2 -> 8 devices; 8 trained the other run from start to end."""
  train_batch, devices = data.train_batch, jax.devices()
  signals = {10, 25}

  def batch_and_signal(split, batch_size, seed, step, **options):
    if step in signals:
      signals.remove(step)
      signal.raise_signal(signal.SIGTERM)
    return train_batch(split, batch_size, seed, step, **options)

  monkeypatch.setattr(data, 'train_batch', batch_and_signal)
  for count in (4, 2):
    monkeypatch.setattr(jax, 'devices', lambda count=count: devices[:count])
    with pytest.raises(Interrupted):
      train(long_config(), workdir=tmp_path)
  monkeypatch.setattr(jax, 'devices', lambda: devices)
  assert train(long_config(), workdir=tmp_path)['num_devices'] == 8
  for ours, theirs in zip(
    metrics(tmp_path), metrics(uninterrupted), strict=True
  ):
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


# `train.py` with the devices and the compiler of this process.
PROGRAM = """
import sys
import tests.conftest
from tests import quick
from mlf_jax import cli
compilation = quick.of_the_library()
next(compilation)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_run_killed_during_a_save_continues_bit_for_bit(
  tmp_path, uninterrupted
):
  """SIGKILL while a checkpoint is half on disk, until it was caught there."""
  directory = tmp_path / 'run'
  checkpoints = directory / 'checkpoints'
  path = tmp_path / 'long.py'
  path.write_text(
    'from tests.training.test_trainer import long_config as get_config\n'
  )

  def present(whole):
    names = os.listdir(checkpoints) if checkpoints.exists() else []
    return {name for name in names if name.isdigit() == whole}

  for _ in range(6):
    before = present(whole=True)
    process = subprocess.Popen(
      [
        *(sys.executable, '-c', PROGRAM, 'train'),
        *(f'--config={path}', f'--workdir={directory}'),
      ],
      cwd=pathlib.Path(__file__).parents[2],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    deadline = time.monotonic() + 120
    # Not the first one, so that there is something to fall back on.
    while not (present(whole=False) and present(whole=True) - before):
      assert process.poll() is None, process.communicate()[0]
      assert time.monotonic() < deadline
      time.sleep(0.001)
    process.kill()
    process.communicate(timeout=20)
    if present(whole=False):
      break
  assert present(whole=False)
  train(long_config(), workdir=directory)
  assert_same_run(directory, uninterrupted)


def test_corrupt_checkpoint_falls_back_to_the_one_before(
  unfinished, finished, capsys
):
  damage(unfinished / 'checkpoints' / '6')
  train(tiny.small(), workdir=unfinished)
  output = capsys.readouterr().out
  assert 'warning: the checkpoint of step 6 is corrupt' in output
  assert 'continuing from step 3' in output
  assert_same_run(unfinished, finished[0])


def test_without_an_intact_checkpoint_nothing_begins_anew(unfinished):
  damage(unfinished / 'checkpoints')
  before = (unfinished / 'metrics.jsonl').read_bytes()
  for _ in range(2):
    with pytest.raises(UserError, match=r'no intact checkpoint in .*corrupt'):
      train(tiny.small(), workdir=unfinished)
    assert (unfinished / 'metrics.jsonl').read_bytes() == before


def test_removed_checkpoints_are_told(unfinished, finished, capsys):
  shutil.rmtree(unfinished / 'checkpoints')
  train(tiny.small(), workdir=unfinished)
  assert f'warning: no checkpoint in {unfinished}' in capsys.readouterr().out
  assert_same_run(unfinished, finished[0])


def test_result_survives_a_damaged_log(unfinished, finished):
  log = unfinished / 'metrics.jsonl'
  log.write_bytes(b'\xff\n' + log.read_bytes()[:-30])
  result = train(tiny.small(), workdir=unfinished)
  for name in ('best/step', 'best/test/accuracy', 'test/accuracy', 'steps'):
    assert result[name] == finished[1][name]
  (unfinished / 'result.json').write_text('{')
  with pytest.raises(UserError, match=r'damaged .* writes it again'):
    train(tiny.small(), workdir=unfinished)
  # Without its configuration a run would be refused: no such advice there.
  (unfinished / 'config.json').write_text('{')
  with pytest.raises(UserError, match=r'config\.json is damaged \(.*\)$'):
    train(tiny.small(), workdir=unfinished)


def test_run_finished_by_another_process_is_not_trained_again(
  tmp_path, finished, monkeypatch
):
  """It ends between the first look and the lock."""
  directory = tmp_path / 'run'
  load = data.load

  def load_and_lose_the_race(*arguments):
    shutil.copytree(finished[0], directory)
    return load(*arguments)

  monkeypatch.setattr(data, 'load', load_and_lose_the_race)
  before = (finished[0] / 'result.json').read_bytes()
  assert train(tiny.small(), workdir=directory) == finished[1]
  assert (directory / 'result.json').read_bytes() == before


# --- Divergence, data of the user's own ---


def test_run_that_diverges_stops_and_leaves_good_checkpoints(tmp_path, capsys):
  """No checkpoint from a streak of skipped steps takes a good one's place."""
  config = tiny.small(
    num_steps=40,
    eval_every_epochs=0.04,
    keep_checkpoints=2,
    optimizer__learning_rate=1e30,
    schedule__name='cosine',
    schedule__warmup_epochs=22.0,
    max_skipped_steps=6,
  )
  with pytest.raises(UserError) as error:
    train(config, workdir=tmp_path)
  message = str(error.value)
  assert '6 steps in a row had a loss, gradient or update that' in message
  lines = metrics(tmp_path)
  named = int(message.split('up to step ')[1].split(';')[0])
  assert lines[-1]['step'] == named
  assert lines[-1]['train/skipped_steps'] >= 6
  assert lines[-1]['train/loss'] is None
  assert 'steps skipped so far' in capsys.readouterr().out
  assert not (tmp_path / 'result.json').exists()
  good = [x['step'] for x in lines if x['train/loss'] and x['test/loss']]
  with CheckpointStore(tmp_path / 'checkpoints') as store:
    assert set(store.steps()) == {*good[-2:], store.best_step()}
  assert restore(tmp_path, 'last').state.skipped_in_row == 0
  assert f'checkpoint is step {good[-1]} ' in message


def test_frames_of_ones_own_train_and_are_evaluated(tmp_path):
  """Separable frames are learned, mixed up and under `pmap`."""
  dataset = tiny.dataset((4, 8, 8, 2), n=96)
  config = tiny.small(
    'frame_arrays',
    num_steps=60,
    batch_size=32,
    schedule__name='cosine',
    model__time_steps=4,
    eval_every_epochs=10.0,
    parallel='pmap',
    augment__mixup=0.1,
  )
  result = train(config, dataset, tmp_path)
  assert (result['data'], result['test/accuracy'] > 0.9) == ('arrays', True)
  full = evaluate(tmp_path, 'last', dataset=dataset)
  assert full['test/accuracy'] == result['test/accuracy']
  first = evaluate(tmp_path, 'last', 2, dataset)
  restored = restore(tmp_path, 'last', dataset)
  logits = quick.jit(restored.model.clone(time_steps=2).apply)(
    restored.state.eval_variables,
    dataset.normalize(dataset.test.images[:, :2], np.float32),
  )
  correct = np.asarray(logits).argmax(-1) == dataset.test.labels
  assert first['test/accuracy'] == pytest.approx(correct.mean())
  assert first['test/loss'] != full['test/loss']
  with pytest.raises(UserError, match='--time_steps 5: arrays has 4 frames'):
    evaluate(tmp_path, 'last', 5, dataset)
  # A directory belongs to its arrays; which they were, only the caller knows.
  with pytest.raises(UserError, match='is a run on other samples'):
    train(config, tiny.dataset((4, 8, 8, 2), n=80), tmp_path)
  with pytest.raises(UserError, match='stands for arrays'):
    evaluate(tmp_path)


def test_the_best_checkpoint_is_chosen_on_validation_samples(tmp_path, capsys):
  config = tiny.small(data__validation=0.2, eval_every_epochs=0.06)
  result = train(config, workdir=tmp_path)
  lines = [line for line in metrics(tmp_path) if 'test/accuracy' in line]
  best = max(lines, key=lambda x: (x['validation/accuracy'], x['step']))
  assert result['best/step'] == best['step']
  assert result['best/validation/accuracy'] == best['validation/accuracy']
  assert result['best/test/accuracy'] == best['test/accuracy']
  assert result['best/chosen_on'] == 'validation set'
  assert restore(tmp_path).step == best['step']
  assert result['train_samples'] + result['validation_samples'] == len(
    data.load('digits').train
  )
  again = evaluate(tmp_path)
  assert again['validation/accuracy'] == best['validation/accuracy']
  out = capsys.readouterr().out
  assert 'chosen on the validation set' in out and 'validation/accuracy' in out


def test_a_run_goes_on_beyond_its_end(tmp_path):
  changes = {'schedule__name': 'step', 'schedule__step_epochs': 1}
  extended, direct = tmp_path / 'extended', tmp_path / 'direct'
  first = train(tiny.small(num_steps=6, **changes), workdir=extended)
  second = train(tiny.small(num_steps=9, **changes), workdir=extended)
  train(tiny.small(num_steps=9, **changes), workdir=direct)
  assert (first['steps'], second['steps']) == (6, 9)
  chex.assert_trees_all_equal(
    restore(extended, 'last').state, restore(direct, 'last').state
  )
  # The result of the shorter run is gone, its evaluation is still there.
  assert json.loads((extended / 'result.json').read_text()) == second
  evaluated = [x['step'] for x in metrics(extended) if 'test/accuracy' in x]
  assert evaluated == [3, 6, 9]
  assert train(tiny.small(num_steps=9, **changes), workdir=extended) == second
  with pytest.raises(UserError, match='cannot become one of 6; choose another'):
    train(tiny.small(num_steps=6, **changes), workdir=extended)


def test_a_run_whose_learning_rates_would_change_is_not_extended(tmp_path):
  changes = {'schedule__name': 'cosine'}
  result = train(tiny.small(num_steps=4, **changes), workdir=tmp_path)
  with pytest.raises(UserError, match=r'other learning rates.*init_from'):
    train(tiny.small(num_steps=6, **changes), workdir=tmp_path)
  # Nothing has changed.
  assert train(tiny.small(num_steps=4, **changes), workdir=tmp_path) == result
