"""A whole run: what it writes, continues, refuses, and how it stops."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mlf_jax import UserError, data, models
from mlf_jax.training import evaluation, loop, workdir
from mlf_jax.training import run as run_lib
from mlf_jax.training.checkpoint import CheckpointStore
from tests import quick
from tests.training import tiny

REPOSITORY = pathlib.Path(__file__).parents[2]
TIMINGS = {'train/samples_per_second'}


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  """Not for the programs that are started."""
  yield from quick.of_the_library()


def metrics(directory):
  """Lines of metrics.jsonl without what is a timing."""
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k not in TIMINGS}
    for line in lines
  ]


def final_state(directory, config):
  """All leaves of the last checkpoint, as the run's own template asks."""
  run = run_lib.load(config)
  with CheckpointStore(directory / 'checkpoints') as store:
    template = jax.eval_shape(lambda: run_lib.init_state(run))
    step, state, _ = store.restore(template)
  assert step == run.schedule.num_steps
  return jax.tree.leaves(state)


def assert_same_run(one, other, config):
  """Bit for bit: every metric but timings, parameters, momentum, the rest."""
  assert metrics(one) == metrics(other)
  for a, b in zip(
    final_state(one, config), final_state(other, config), strict=True
  ):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run of the tiny configuration, from beginning to end."""
  directory = tmp_path_factory.mktemp('finished')
  return directory, loop.train(tiny.config(), directory)


def test_outputs(finished):
  directory, result = finished
  assert {p.name for p in directory.iterdir()} == {
    '.lock',
    'config.json',
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
  assert all(line['epoch'] == 1 for line in lines)
  for line in lines:
    assert line['train/loss'] > 0 and 0 <= line['train/accuracy'] <= 1
    assert line['train/learning_rate'] == pytest.approx(0.1)
    assert line['train/skipped_steps'] == 0
  for line in (directory / 'metrics.jsonl').read_text().splitlines():
    assert 1 < json.loads(line)['train/samples_per_second'] < 1e6
  assert any((directory / 'tensorboard').iterdir())
  assert result == json.loads((directory / 'result.json').read_text())
  assert result['test/accuracy'] == lines[-1]['test/accuracy']
  best = max((x['test/accuracy'], x['step']) for x in lines if 'test/loss' in x)
  assert (result['best/test/accuracy'], result['best/step']) == best
  assert result['seed'] == 0 and result['data'] == 'digits'
  assert result['split_name'] == data.load('digits', 'test').split_name
  assert result['versions']['jax'] == jax.__version__
  variables = jax.eval_shape(
    models.SpikingResNet((1, 1, 1), (2, 3, 4), 10, 2).init,
    jax.random.key(0),
    np.zeros((1, 8, 8, 1), np.float32),
  )
  assert result['parameters'] == sum(
    np.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params'])
  )


def test_finished_run_says_so_and_does_not_train_again(finished, capsys):
  directory, result = finished
  before = (directory / 'metrics.jsonl').read_bytes()
  assert loop.train(tiny.config(), directory) == result
  assert f'{directory} is finished: test/accuracy' in capsys.readouterr().out
  assert (directory / 'metrics.jsonl').read_bytes() == before


def test_another_configuration_is_refused_with_the_fields(finished):
  directory, _ = finished
  changed = tiny.config(seed=1, model__widths=(2, 2, 2))
  with pytest.raises(UserError) as error:
    loop.train(changed, directory)
  message = str(error.value)
  assert 'config.seed: 1 here, 0 there' in message
  assert 'config.model.widths: [2, 2, 2] here, [2, 3, 4] there' in message
  assert 'config.batch_size' not in message


def test_directory_in_use_is_refused(tmp_path):
  config = tiny.config()
  with (
    workdir.claim(tmp_path, config),
    pytest.raises(UserError, match='another process is training in'),
  ):
    loop.train(config, tmp_path)


@pytest.mark.parametrize('place', ['/dev/null/run', '/proc/run'])
def test_directory_that_cannot_be_written(place):
  with pytest.raises(UserError, match=f'cannot write to the workdir {place}'):
    loop.train(tiny.config(), place)


def test_mistake_in_data_or_model_leaves_no_directory(tmp_path):
  directory = tmp_path / 'run'
  for config in (
    tiny.config(model__depth=9),
    tiny.config(batch_size=4000),
    tiny.config(model__thresholds=(1.6, 0.6)),
  ):
    with pytest.raises(UserError):
      loop.train(config, directory)
    assert not directory.exists()


def launch(directory, *flags):
  """Starts `train.py` on one device; the caller waits or kills."""
  return subprocess.Popen(
    [
      sys.executable,
      str(REPOSITORY / 'train.py'),
      f'--workdir={directory}',
      *tiny.FLAGS,
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for(condition, process):
  deadline = time.monotonic() + 120
  while not condition():
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.001)


LONG = ('--config.num_steps=40', '--config.eval_every_epochs=0.28')


def long_config():
  config = tiny.config(num_steps=40, eval_every_epochs=0.28)
  # What the flags leave at the values of configs/digits.py.
  config.eval_batch_size = 256
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  return config


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  directory = tmp_path_factory.mktemp('uninterrupted')
  process = launch(directory, *LONG)
  output = process.communicate(timeout=200)[0]
  assert process.returncode == 0, output
  assert [line['step'] for line in metrics(directory)] == list(range(2, 41, 2))
  return directory


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_continues_bit_for_bit(tmp_path, uninterrupted, number):
  """Asked to stop between two checkpoints, in the middle of a line."""
  process = launch(tmp_path, *LONG)
  wait_for(
    lambda: (
      (tmp_path / 'metrics.jsonl').exists()
      and len(metrics_or_none(tmp_path)) >= 4
    ),
    process,
  )
  process.send_signal(number)
  output = process.communicate(timeout=100)[0]
  assert process.returncode == 128 + number, output
  assert 'interrupted at step' in output
  assert 'the same command continues from step' in output
  assert not (tmp_path / 'result.json').exists()
  output = launch(tmp_path, *LONG).communicate(timeout=200)[0]
  assert 'continuing from step' in output and 'finished in' in output
  assert_same_run(tmp_path, uninterrupted, long_config())


def metrics_or_none(directory):
  """Like `metrics`, while the file may be half-written."""
  try:
    return metrics(directory)
  except ValueError:
    return []


def test_run_killed_during_a_save_continues_bit_for_bit(
  tmp_path, uninterrupted
):
  """SIGKILL while a checkpoint is half on disk, until it was caught there."""
  checkpoints = tmp_path / 'checkpoints'

  def present(whole):
    names = os.listdir(checkpoints) if checkpoints.exists() else []
    return {name for name in names if name.isdigit() == whole}

  for _ in range(6):
    process = launch(tmp_path, *LONG)
    before = present(whole=True)
    # Not the first one, so that there is something to fall back on.
    wait_for(
      lambda before=before: (
        present(whole=False) and present(whole=True) - before
      ),
      process,
    )
    process.kill()
    process.communicate(timeout=20)
    if present(whole=False):
      break
  assert present(whole=False)
  output = launch(tmp_path, *LONG).communicate(timeout=200)[0]
  assert 'finished in' in output, output
  assert_same_run(tmp_path, uninterrupted, long_config())


def test_corrupt_checkpoint_falls_back_to_the_one_before(
  tmp_path, finished, capsys
):
  directory = tmp_path / 'run'
  loop.train(tiny.config(), directory)
  (directory / 'result.json').unlink()
  last = directory / 'checkpoints' / '6'
  for path in last.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  capsys.readouterr()
  loop.train(tiny.config(), directory)
  output = capsys.readouterr().out
  assert 'warning: the checkpoint of step 6 is corrupt' in output
  assert 'continuing from step 3' in output
  assert_same_run(directory, finished[0], tiny.config())


def test_run_that_is_not_finite_stops_and_names_step_and_checkpoint(tmp_path):
  config = tiny.config(
    num_steps=40,
    optimizer__learning_rate=1e30,
    schedule__name='cosine',
    schedule__warmup_epochs=22.0,
    max_skipped_steps=3,
  )
  with pytest.raises(UserError) as error:
    loop.train(config, tmp_path)
  message = str(error.value)
  assert '3 steps in a row had a loss, gradient or update that' in message
  lines = metrics(tmp_path)
  first_bad = next(x['step'] for x in lines if x['train/skipped_steps'])
  named = int(message.split('up to step ')[1].split(';')[0])
  assert first_bad <= named <= first_bad + 4
  assert not (tmp_path / 'result.json').exists()
  with CheckpointStore(tmp_path / 'checkpoints') as store:
    good = store.steps()[-1] if store.steps() else None
  expected = f'checkpoint is step {good}' if good else 'is no checkpoint yet'
  assert expected in message


def test_checkpoints_of_a_run_that_diverges_are_good(tmp_path):
  """No checkpoint from a streak of skipped steps takes a good one's place."""
  config = tiny.config(
    num_steps=40,
    eval_every_epochs=0.04,
    optimizer__learning_rate=1e30,
    schedule__name='cosine',
    schedule__warmup_epochs=22.0,
    max_skipped_steps=6,
  )
  with pytest.raises(UserError) as error:
    loop.train(config, tmp_path)
  run = run_lib.load(config)
  with CheckpointStore(tmp_path / 'checkpoints') as store:
    for step in store.steps():
      _, state, saved = store.restore(run_lib.init_state(run), step)
      assert state.skipped_in_row == 0 and np.isfinite(saved['test/loss'])
    last = store.steps()[-1:]
  named = f'checkpoint is step {last[0]} ' if last else 'no checkpoint yet'
  assert named in str(error.value)


def test_directory_of_unknown_origin_is_refused(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  (directory / 'config.json').unlink()
  with pytest.raises(UserError, match='but no config'):
    loop.train(tiny.config(), directory)


def test_run_finished_by_another_process_is_not_trained_again(
  tmp_path, finished, monkeypatch
):
  """It ends between the first look and the lock."""
  directory = tmp_path / 'run'
  load = run_lib.load

  def load_and_lose_the_race(config):
    shutil.copytree(finished[0], directory)
    return load(config)

  monkeypatch.setattr(run_lib, 'load', load_and_lose_the_race)
  before = (finished[0] / 'result.json').read_bytes()
  assert loop.train(tiny.config(), directory) == finished[1]
  assert (directory / 'result.json').read_bytes() == before


def test_evaluate_moves_nothing_of_a_run(tmp_path, finished, capsys):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  last = directory / 'checkpoints' / '6'
  for path in last.rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  assert evaluation.evaluate(str(directory), 'last')['step'] == 3
  assert 'checkpoint of step 6 is corrupt' in capsys.readouterr().err
  assert last.is_dir()
  for path in (directory / 'checkpoints' / '3').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(UserError, match=r'corrupt ones are in .*/checkpoints;'):
    evaluation.evaluate(str(directory), 'last')
  assert not (directory / 'checkpoints_corrupt').exists()


def test_infinite_updates_are_skipped_and_told(tmp_path, capsys):
  config = tiny.config(
    optimizer__weight_decay=1e38, optimizer__learning_rate=1e6, num_steps=2
  )
  result = loop.train(config, tmp_path)
  assert result['skipped_steps'] == 2 and np.isfinite(result['test/loss'])
  assert 'warning: 2 steps skipped so far' in capsys.readouterr().out


def test_without_an_intact_checkpoint_nothing_begins_anew(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  (directory / 'result.json').unlink()
  for path in (directory / 'checkpoints').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  before = (directory / 'metrics.jsonl').read_bytes()
  for _ in range(2):
    with pytest.raises(UserError, match=r'no intact checkpoint in .*corrupt'):
      loop.train(tiny.config(), directory)
    assert (directory / 'metrics.jsonl').read_bytes() == before


def test_result_survives_a_damaged_log(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  (directory / 'result.json').unlink()
  log = directory / 'metrics.jsonl'
  log.write_bytes(b'\xff\n' + log.read_bytes()[:-30])
  result = loop.train(tiny.config(), directory)
  for name in ('best/step', 'best/test/accuracy', 'test/accuracy', 'steps'):
    assert result[name] == finished[1][name]
  (directory / 'result.json').write_text('{')
  with pytest.raises(UserError, match=r'damaged .* writes it again'):
    loop.train(tiny.config(), directory)
  # Without its configuration a run would be refused: no such advice there.
  (directory / 'config.json').write_text('{')
  with pytest.raises(UserError, match=r'config\.json is damaged \(.*\)$'):
    loop.train(tiny.config(), directory)


def test_removed_checkpoints_are_told(tmp_path, finished, capsys):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  (directory / 'result.json').unlink()
  shutil.rmtree(directory / 'checkpoints')
  loop.train(tiny.config(), directory)
  assert f'warning: no checkpoint in {directory}' in capsys.readouterr().out
  assert_same_run(directory, finished[0], tiny.config())


def test_keep_checkpoints_and_the_best_besides(tmp_path):
  config = tiny.config(num_steps=8, eval_every_epochs=0.04, keep_checkpoints=2)
  result = loop.train(config, tmp_path)
  kept = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert kept == {7, 8, result['best/step']}


def test_evaluate_prints_and_stores(finished, capsys):
  directory, result = finished
  line = evaluation.evaluate(str(directory), 'last')
  assert f'test/accuracy {line["test/accuracy"]:.4f}' in capsys.readouterr().out
  assert line['test/accuracy'] == result['test/accuracy']
  assert line['test/loss'] == pytest.approx(result['test/loss'], rel=1e-6)
  best = evaluation.evaluate(str(directory), 'best')
  assert (best['step'], best['test/accuracy']) == (
    result['best/step'],
    result['best/test/accuracy'],
  )
  longer = evaluation.evaluate(str(directory), 'last', time_steps=5)
  assert longer['time_steps'] == 5
  assert longer['test/loss'] != line['test/loss']
  stored = (directory / 'evaluations.jsonl').read_text().splitlines()
  (directory / 'evaluations.jsonl').unlink()
  assert [json.loads(s) for s in stored] == [line, best, longer]


def test_evaluate_equals_the_model_applied_by_hand(finished):
  """All 359 samples once, though no batch size divides them."""
  directory, result = finished
  run = run_lib.load(tiny.config())
  with CheckpointStore(directory / 'checkpoints') as store:
    _, state, _ = store.restore(run_lib.init_state(run))
  test_set, model = run.test_set, run.steps.model
  pixels = test_set.images / test_set.scale
  images = (pixels - np.array(test_set.mean)) / np.array(test_set.std)
  logits = quick.jit(model.apply)(
    state.eval_variables, images.astype(np.float32)
  )
  correct = np.asarray(logits).argmax(-1) == test_set.labels
  losses = -np.asarray(jax.nn.log_softmax(logits))[
    np.arange(len(test_set)), test_set.labels
  ]
  assert result['test/loss'] == pytest.approx(losses.mean(), rel=1e-5)
  assert result['test/accuracy'] == pytest.approx(correct.mean(), abs=1e-6)


def test_frames_train_and_are_evaluated_on_their_first_timesteps(
  tmp_path, monkeypatch
):
  """Separable frames are learned, mixed; no more timesteps than frames."""
  sets = {
    split: tiny.dataset((4, 8, 8, 2), n=96, split=split, seed=i)
    for i, split in enumerate(('train', 'test'))
  }
  monkeypatch.setattr(data, 'load', lambda name, split, **_: sets[split])
  config = tiny.config(
    'moving_digits',
    num_steps=60,
    batch_size=32,
    model__time_steps=4,
    model__widths=(8, 8, 8),
    augment__mixup=0.1,
    eval_every_epochs=10.0,
  )
  result = loop.train(config, tmp_path)
  assert result['test/accuracy'] > 0.9
  full = evaluation.evaluate(str(tmp_path), 'last')
  assert full['test/accuracy'] == result['test/accuracy']
  first = evaluation.evaluate(str(tmp_path), 'last', time_steps=2)
  run = run_lib.load(config)
  with CheckpointStore(tmp_path / 'checkpoints') as store:
    _, state, _ = store.restore(run_lib.init_state(run))
  model = run.steps.model.clone(time_steps=2, axis_name=None)
  logits = quick.jit(model.apply)(
    state.eval_variables, run.steps.normalize(run.test_set.images[:, :2])
  )
  correct = np.asarray(logits).argmax(-1) == run.test_set.labels
  assert first['test/accuracy'] == pytest.approx(correct.mean())
  assert first['test/loss'] != full['test/loss']
  with pytest.raises(UserError, match='--time_steps 5: simulated has 4 frames'):
    evaluation.evaluate(str(tmp_path), 'last', time_steps=5)


def test_pmap_run_equals_shard_map_run(tmp_path, finished):
  loop.train(tiny.config(parallel='pmap'), tmp_path)
  for one, other in zip(metrics(tmp_path), metrics(finished[0]), strict=True):
    assert one == pytest.approx(other, rel=1e-4)
