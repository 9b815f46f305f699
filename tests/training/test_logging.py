"""Every step is reported once, whenever the run before it was killed."""

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import textwrap
from unittest import mock

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlf_jax.errors import UserError
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.logging import MetricsLog, Progress, TrainLogger
from tests.training import tiny


def read_lines(workdir):
  """Parses strictly: Python's own NaN is not JSON."""

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  text = (workdir / 'metrics.jsonl').read_text()
  assert text == '' or text.endswith('\n')
  return [json.loads(x, parse_constant=refuse) for x in text.splitlines()]


def read_events(path):
  """Yields the events of a TFRecord file."""
  with open(path, 'rb') as file:
    while header := file.read(12):
      (length,) = struct.unpack('<Q', header[:8])
      yield Event.FromString(file.read(length))
      file.read(4)


def shown_by_tensorboard(workdir):
  """Returns what TensorBoard shows: purged by each start of a session."""
  shown = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    for event in read_events(path):
      if event.session_log.status == SessionLog.START:
        shown = [entry for entry in shown if entry[0] < event.step]
      for value in event.summary.value:
        shown.append((event.step, value.tag, value.simple_value))
  return shown


def write_steps(log, steps):
  for step in steps:
    log.write(step, step // 10, {'train/loss': 1 / step})


# --- Lines ---


def write_run(workdir, first, last, stored=None):
  """Logs steps of a run, whose loss is their number; returns partial sums."""
  config = tiny.config(num_steps=20, log_every=4, eval_every_epochs=1.0)
  log = MetricsLog(workdir, first - 1)
  logger = TrainLogger(
    log,
    mock.Mock(),
    Timeline(config, steps_per_epoch=10),
    batch_size=8,
    stored=stored,
  )
  for step in range(first, last + 1):
    skipped = step in (6, 13, 14, 15, 16)
    logger.add_step(
      step,
      {
        'loss': np.float32(np.nan if skipped else step),
        'accuracy': np.float32(step / 32),
        'learning_rate': np.float32(0.5),
        'skipped_steps': np.int32(1 if step < 13 else 5),
        'skipped_in_row': np.int32(skipped),
      },
    )
    if step % 10 == 0:
      logger.add_evaluation(step, {'test/loss': 2.0, 'test/accuracy': 0.5})
  log.close()
  return logger.partial_sums


def test_lines_are_means_over_the_steps_that_were_not_skipped(tmp_path):
  write_run(tmp_path, 1, 20)
  lines = read_lines(tmp_path)
  means = {4: (1, 2, 3, 4), 8: (5, 7, 8), 10: (9, 10), 12: (11, 12), 16: ()}
  means[20] = (17, 18, 19, 20)
  assert [line['step'] for line in lines] == list(means)
  for line, steps in zip(lines, means.values(), strict=True):
    expected = np.mean(steps) if steps else None
    assert line['train/loss'] == expected
    assert line['train/accuracy'] == (expected and expected / 32)
    assert line['train/learning_rate'] == 0.5
    assert ('test/loss' in line) == (line['step'] in (10, 20))
  assert [line['epoch'] for line in lines] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize('stopped_at', [5, 7, 8, 15])
def test_resumed_run_writes_the_lines_of_an_uninterrupted_one(
  tmp_path, stopped_at
):
  """The partial sums go through the JSON of a checkpoint."""
  write_run(tmp_path / 'whole', 1, 20)
  sums = write_run(tmp_path / 'parts', 1, stopped_at)
  write_run(
    tmp_path / 'parts', stopped_at + 1, 20, json.loads(json.dumps(sums))
  )
  whole, parts = (read_lines(tmp_path / name) for name in ('whole', 'parts'))
  for line in whole + parts:
    del line['train/samples_per_second']
  assert parts == whole


# --- metrics.jsonl and TensorBoard ---


def test_lines_and_events_are_there_once_written(tmp_path):
  """Even if the process is killed; NaN and infinity are null in JSON."""
  values = [0.5, np.nan, np.inf, -np.inf]
  code = f"""
  import os, signal, sys
  from numpy import float32, inf, nan
  from mlf_jax.training.logging import MetricsLog
  log = MetricsLog(sys.argv[1])
  for step, value in enumerate({[float(value) for value in values]}):
    log.write(step, 1, {{'train/loss': float32(value)}})
  assert 'tensorflow' not in sys.modules
  os.kill(os.getpid(), signal.SIGKILL)
  """
  workdir = tmp_path / 'new' / 'run'
  killed = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), workdir], check=False
  )
  assert killed.returncode == -signal.SIGKILL
  assert read_lines(workdir) == [
    {'step': step, 'epoch': 1, 'train/loss': value}
    for step, value in enumerate([0.5, None, None, None])
  ]
  steps, names, shown = zip(*shown_by_tensorboard(workdir), strict=True)
  assert (steps, set(names)) == ((0, 1, 2, 3), {'train/loss'})
  np.testing.assert_array_equal(shown, values)


def test_resume_after_a_kill_at_any_byte(tmp_path):
  log = MetricsLog(tmp_path)
  write_steps(log, [1, 2, 3, 4, 5])
  log.close()
  path = tmp_path / 'metrics.jsonl'
  complete = path.read_bytes()
  last_line = complete.rstrip(b'\n').rindex(b'\n') + 1
  for size in range(last_line, len(complete) + 1):
    for checkpoint in (0, 3, 4):
      path.write_bytes(complete[:size])
      log = MetricsLog(tmp_path, checkpoint)
      kept = [line['step'] for line in read_lines(tmp_path)]
      assert kept == list(range(1, checkpoint + 1))
      write_steps(log, range(checkpoint + 1, 7))
      log.close()
      assert [x['step'] for x in read_lines(tmp_path)] == list(range(1, 7))
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'metrics.jsonl',
    'tensorboard',
  ]


def test_resume_keeps_a_whole_line_without_its_newline(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1, "epoch": 0}')
  MetricsLog(tmp_path, 1).close()
  assert read_lines(tmp_path) == [{'step': 1, 'epoch': 0}]


def test_tensorboard_shows_every_step_once(tmp_path):
  log = MetricsLog(tmp_path)
  write_steps(log, range(1, 8))
  log.close()
  # Within the same second, for which tensorboardX has one file name.
  for checkpoint, last in ((4, 6), (5, 9)):
    log = MetricsLog(tmp_path, checkpoint)
    write_steps(log, range(checkpoint + 1, last + 1))
    log.close()
  shown = [step for step, _, _ in shown_by_tensorboard(tmp_path)]
  assert shown == list(range(1, 10))


def test_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'cannot write .*file') as caught:
    MetricsLog(tmp_path / 'file' / 'run')
  assert '\n' not in str(caught.value)


# --- Progress ---


def show_run():
  names = ('train/loss', 'train/accuracy', 'train/samples_per_second')
  line = lambda *values: dict(zip(names, values, strict=True))
  with Progress(1000, initial_step=100) as progress:
    progress.update(120, 3, line(0.12344, 0.95, 1234.4), 2 * 3600 + 62.4)
    progress.say('saved [step] 120 ' + 100 * 'x')
    progress.update(140, 3, line(float('nan'), 0.96, 99.6), 100 * 3600)
    progress.advance(147)
    raise KeyboardInterrupt


def shown_on_terminal(monkeypatch, term='xterm-256color'):
  """Output on a pseudo-terminal of a run that is interrupted at its end."""
  parent, child = pty.openpty()
  for name, value in {'TERM': term, 'COLUMNS': '80', 'LINES': '24'}.items():
    monkeypatch.setenv(name, value)
  with os.fdopen(child, 'w') as terminal:
    monkeypatch.setattr(sys, 'stdout', terminal)
    with pytest.raises(KeyboardInterrupt):
      show_run()
  monkeypatch.undo()
  output = b''
  try:
    while chunk := os.read(parent, 1 << 16):
      output += chunk
  except OSError:
    pass  # How Linux says that the other end is closed.
  os.close(parent)
  return output.decode()


def test_plain_lines_on_a_pipe(capsys):
  with pytest.raises(KeyboardInterrupt):
    show_run()
  output = capsys.readouterr()
  assert output.out.splitlines() == [
    'step 120/1000  epoch 3  loss 0.1234  accuracy 0.950  1234 samples/s  '
    '02:01:02 left',
    'saved [step] 120 ' + 100 * 'x',
    'step 140/1000  epoch 3  loss nan  accuracy 0.960  100 samples/s  '
    '100:00:00 left',
  ]
  assert output.err == ''


def test_plain_lines_on_a_terminal_that_cannot_move_its_cursor(monkeypatch):
  output = shown_on_terminal(monkeypatch, term='dumb')
  assert '\x1b' not in output
  assert 'step 120/1000  epoch 3  loss 0.1234' in output


def test_bar_on_a_terminal(monkeypatch):
  output = shown_on_terminal(monkeypatch)
  assert '━' in output
  assert re.search(
    r'loss nan  accuracy 0\.960  100 samples/s  100:00:00', output
  )
  assert 'epoch' not in output
  # The bar moves between two lines of metrics.
  assert '147/1000' in output
  # The line is whole, and the bar is drawn again below it.
  said = output.index('saved [step] 120 ' + 100 * 'x')
  assert '147/1000' in output[said:]
  # The cursor comes back, also after an interruption.
  hide, show = '\x1b[?25l', '\x1b[?25h'
  assert output.count(hide) == output.count(show) == 1
  assert output.index(hide) < output.index(show)
