"""Work in several processes: shared, undisturbed, ended with its parent."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mlf_jax import UserError
from mlf_jax.data import workers


def note_process(path: pathlib.Path) -> None:
  """Notes which process does the work, and takes its time."""
  path.write_text(str(os.getpid()))
  time.sleep(0.3)


def refuse(number: int) -> None:
  raise UserError(f'{number} is refused')


def fail(number: int) -> None:
  raise ZeroDivisionError(number)


class Picky(Exception):
  """Cannot be made again of its arguments."""

  def __init__(self, *, number):
    super().__init__(f'{number} is picky')


def be_picky(number: int) -> None:
  raise Picky(number=number)


def chatter(number: int) -> None:
  os.write(1, b'Info: a library speaks')
  print(number)


def die(number: int) -> None:
  del number
  os.kill(os.getpid(), signal.SIGKILL)


def test_processes_share_the_work(tmp_path):
  paths = [tmp_path / str(i) for i in range(4)]
  assert set(workers.run(note_process, paths, 2)) == set(paths)
  processes = {path.read_text() for path in paths}
  assert len(processes) == 2 and str(os.getpid()) not in processes


def test_one_process_is_this_one(tmp_path):
  paths = [tmp_path / '0']
  assert list(workers.run(note_process, paths, 8)) == paths
  assert paths[0].read_text() == str(os.getpid())


@pytest.mark.parametrize(
  ('work', 'error', 'message'),
  [
    (refuse, UserError, 'is refused'),
    (fail, ZeroDivisionError, None),
    (be_picky, RuntimeError, 'Picky: . is picky'),
    (lambda number: None, Exception, 'pickle'),
    (die, UserError, 'the same command goes on where it was'),
  ],
)
def test_errors_arrive(work, error, message):
  with pytest.raises(error, match=message):
    list(workers.run(work, [1, 2, 3], 2))


def test_what_a_process_prints_is_no_reply(capfd):
  assert sorted(workers.run(chatter, [1, 2, 3], 2)) == [1, 2, 3]
  out, err = capfd.readouterr()
  assert out == '' and err.count('a library speaks') == 3


def test_a_run_that_is_given_up_ends_its_processes(tmp_path):
  paths = [tmp_path / str(i) for i in range(50)]
  run = workers.run(note_process, paths, 2)
  next(run)
  run.close()
  processes = {int(path.read_text()) for path in tmp_path.iterdir()}
  assert len(list(tmp_path.iterdir())) < 10
  for process in processes:
    with pytest.raises(ProcessLookupError):
      os.kill(process, 0)


def test_processes_import_what_this_one_does(tmp_path, monkeypatch):
  """Whatever lies in the current folder."""
  (tmp_path / 'queue.py').write_text('raise SystemExit("wrong queue")')
  (tmp_path / 'mlf_jax').mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path, tmp_path / 'a path'])
  assert len(list(workers.run(chatter, [1, 2], 2))) == 2


def test_no_tasks_start_no_process(monkeypatch):
  monkeypatch.setattr(subprocess, 'Popen', None)
  assert list(workers.run(refuse, [], 2)) == []


_PARENT = """
import pathlib, sys
from mlf_jax.data import workers
from tests.data.test_workers import note_process
# No guard: that this runs twice is what must not happen.
paths = [pathlib.Path(sys.argv[1], str(i)) for i in range(200)]
for path in workers.run(note_process, paths, 2):
  print(path.read_text(), flush=True)
"""


def test_processes_end_with_their_parent(tmp_path):
  # A session of its own, so that its processes can be counted.
  parent = subprocess.Popen(
    [sys.executable, '-c', _PARENT, str(tmp_path)],
    start_new_session=True,
    stdout=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parents[2],
  )
  with parent:
    assert int(parent.stdout.readline())  # A process works.
    parent.kill()
  deadline = time.monotonic() + 30
  while time.monotonic() < deadline:
    try:
      os.killpg(parent.pid, 0)
    except ProcessLookupError:
      return
    time.sleep(0.05)
  pytest.fail('processes outlived their parent')
