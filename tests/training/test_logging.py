"""Every step is reported once, whenever the run before it was killed."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlf_jax.errors import UserError
from mlf_jax.training.report import MetricsLog, Progress, write_json


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


# metrics.jsonl and TensorBoard


def test_line_and_events(tmp_path):
  log = MetricsLog(tmp_path / 'new' / 'run')
  log.write(10, 1, {'train/loss': np.float32(0.5), 'test/accuracy': 0.25})
  log.close()
  assert read_lines(tmp_path / 'new' / 'run') == [
    {'step': 10, 'epoch': 1, 'train/loss': 0.5, 'test/accuracy': 0.25}
  ]
  assert shown_by_tensorboard(tmp_path / 'new' / 'run') == [
    (10, 'train/loss', 0.5),
    (10, 'test/accuracy', 0.25),
  ]


def test_lines_are_there_when_killed(tmp_path):
  code = """
  import os, signal, sys
  from mlf_jax.training.report import MetricsLog
  log = MetricsLog(sys.argv[1])
  for step in (1, 2):
    log.write(step, 0, {'train/loss': 0.5})
  os.kill(os.getpid(), signal.SIGKILL)
  """
  subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), str(tmp_path)], check=False
  )
  assert [line['step'] for line in read_lines(tmp_path)] == [1, 2]
  assert [step for step, _, _ in shown_by_tensorboard(tmp_path)] == [1, 2]


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_what_json_cannot_say_is_null(tmp_path, value):
  log = MetricsLog(tmp_path)
  log.write(1, 0, {'train/loss': value})
  log.close()
  assert read_lines(tmp_path) == [{'step': 1, 'epoch': 0, 'train/loss': None}]
  np.testing.assert_equal(shown_by_tensorboard(tmp_path)[0][2], value)


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
      log = MetricsLog(tmp_path)
      log.resume(checkpoint)
      assert [line['step'] for line in read_lines(tmp_path)] == list(
        range(1, checkpoint + 1)
      )
      write_steps(log, range(checkpoint + 1, 7))
      log.close()
      assert [line['step'] for line in read_lines(tmp_path)] == list(
        range(1, 7)
      )
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'metrics.jsonl',
    'tensorboard',
  ]


def test_resume_keeps_a_whole_line_without_its_newline(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1, "epoch": 0}')
  log = MetricsLog(tmp_path)
  log.resume(1)
  log.close()
  assert read_lines(tmp_path) == [{'step': 1, 'epoch': 0}]


def test_tensorboard_shows_every_step_once(tmp_path):
  log = MetricsLog(tmp_path)
  write_steps(log, range(1, 8))
  log.close()
  # Within the same second, for which tensorboardX has one file name.
  for checkpoint, last in ((4, 6), (5, 9)):
    log = MetricsLog(tmp_path)
    log.resume(checkpoint)
    write_steps(log, range(checkpoint + 1, last + 1))
    log.close()
  assert [step for step, _, _ in shown_by_tensorboard(tmp_path)] == list(
    range(1, 10)
  )


def test_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'cannot write .*file') as caught:
    MetricsLog(tmp_path / 'file' / 'run')
  assert '\n' not in str(caught.value)


def test_tensorflow_is_not_imported(tmp_path):
  code = """
  import sys
  from mlf_jax.training.report import MetricsLog
  log = MetricsLog(sys.argv[1])
  log.write(1, 0, {'train/loss': 0.5})
  log.close()
  assert 'tensorflow' not in sys.modules
  """
  subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), str(tmp_path)], check=True
  )


# JSON files


def test_write_json(tmp_path):
  path = tmp_path / 'result.json'
  write_json(path, {'accuracy': 0.5})
  write_json(path, {'loss': [float('nan'), 1.0], 'sizes': (1, 2)})
  assert json.loads(path.read_text()) == {'loss': [None, 1.0], 'sizes': [1, 2]}
  assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
  path = tmp_path / 'result.json'
  write_json(path, {'accuracy': 0.5})

  def fail(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(UserError, match=r'result\.json: No space left') as caught:
    write_json(path, {'accuracy': 0.75})
  assert '\n' not in str(caught.value)
  assert json.loads(path.read_text()) == {'accuracy': 0.5}


def test_write_json_into_a_missing_directory(tmp_path):
  with pytest.raises(UserError, match='No such file'):
    write_json(tmp_path / 'missing' / 'result.json', {})


# Progress

RUN = """
import sys
from mlf_jax.training.report import Progress
with Progress(1000, initial_step=100) as progress:
  progress.update(120, 3, 0.12344, 0.95, 1234.4)
  progress.say('saved [step] 120 ' + 100 * 'x')
  progress.update(140, 3, float('nan'), 0.96, 99.6)
  progress.advance(147)
  if sys.argv[1:]:
    raise KeyboardInterrupt
print('done')
"""


def run_on_terminal(*args, term='xterm-256color'):
  """Runs the code on a pseudo-terminal; returns what it wrote to it."""
  parent, child = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-c', RUN, *args],
    stdin=child,
    stdout=child,
    stderr=subprocess.DEVNULL,
    env={**os.environ, 'TERM': term, 'COLUMNS': '80', 'LINES': '24'},
  )
  os.close(child)
  output = b''
  try:
    while chunk := os.read(parent, 1 << 16):
      output += chunk
  except OSError:
    pass  # How Linux says that the other end is closed.
  os.close(parent)
  process.wait()
  return output.decode()


def test_plain_lines_on_a_pipe():
  result = subprocess.run(
    [sys.executable, '-c', RUN], capture_output=True, text=True, check=True
  )
  first, said, second, done = result.stdout.splitlines()
  status, time_left = first.rsplit('  ', 1)
  assert status == (
    'step 120/1000  epoch 3  loss 0.1234  accuracy 0.950  1234 samples/s'
  )
  assert re.fullmatch(r'\d\d:\d\d:\d\d left', time_left)
  assert said == 'saved [step] 120 ' + 100 * 'x'
  assert second.startswith('step 140/1000  epoch 3  loss nan  accuracy 0.960')
  assert done == 'done'
  assert result.stderr == ''


def test_plain_lines_on_a_terminal_that_cannot_move_its_cursor():
  output = run_on_terminal(term='dumb')
  assert '\x1b' not in output
  assert 'step 120/1000  epoch 3  loss 0.1234' in output


def test_bar_on_a_terminal():
  output = run_on_terminal()
  assert '━' in output
  assert re.search(
    r'loss nan  accuracy 0\.960  100 samples/s  \d\d:\d\d:\d\d', output
  )
  assert 'epoch' not in output
  # The bar moves between two lines of metrics.
  assert '147/1000' in output
  # The line is whole, and the bar is drawn again below it.
  said = output.index('saved [step] 120 ' + 100 * 'x')
  assert '147/1000' in output[said:]
  assert output.endswith('done\r\n')


@pytest.mark.parametrize('args', [(), ('interrupt',)])
def test_cursor_comes_back(args):
  hide, show = '\x1b[?25l', '\x1b[?25h'
  output = run_on_terminal(*args)
  assert output.count(hide) == output.count(show) == 1
  assert output.index(hide) < output.index(show)


def test_time_left(monkeypatch, capsys):
  clock = iter([0.0, 100.0, 110.0, 120.0, 130.0])
  monkeypatch.setattr('time.monotonic', lambda: next(clock))
  with Progress(10_000, initial_step=1000) as progress:
    for step in (1010, 1020, 1030, 10_000):
      progress.update(step, 0, 0.0, 0.0, 0.0)
  left = [line.split()[-2] for line in capsys.readouterr().out.splitlines()]
  # Once there is a second update, the first interval, in which the step is
  # compiled, no longer counts: 8980 steps at one a second.
  assert left == ['24:58:20', '02:29:40', '02:29:30', '00:00:00']
