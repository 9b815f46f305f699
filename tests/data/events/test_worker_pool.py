"""Worker processes: they share work and end with their parent."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from mlf_jax.data.events import worker_pool
from mlf_jax.errors import UserError
from tests.data import work


def test_processes_share_the_work(tmp_path):
  paths = [tmp_path / str(i) for i in range(4)]
  assert set(worker_pool.run_tasks(work.note_process, paths, 2)) == set(paths)
  processes = {path.read_text() for path in paths}
  assert len(processes) == 2 and str(os.getpid()) not in processes


def test_one_process_is_this_one(tmp_path):
  paths = [tmp_path / '0']
  assert list(worker_pool.run_tasks(work.note_process, paths, 8)) == paths
  assert paths[0].read_text() == str(os.getpid())
  assert list(worker_pool.run_tasks(work.fail, [], 2)) == []


@pytest.mark.parametrize(
  ('function', 'error', 'message'),
  [
    (work.fail, ZeroDivisionError, 'fails'),
    (work.be_picky, RuntimeError, 'PickyError: . is picky'),
    (lambda number: None, Exception, 'pickle'),
    (work.die, UserError, 'the same command goes on where it was'),
  ],
)
def test_errors_arrive(function, error, message):
  with pytest.raises(error, match=message):
    list(worker_pool.run_tasks(function, [1, 2, 3], 2))


def test_what_a_process_prints_is_no_reply(capfd):
  assert sorted(worker_pool.run_tasks(work.chatter, [1, 2, 3], 2)) == [1, 2, 3]
  out, err = capfd.readouterr()
  assert out == '' and err.count('a library speaks') == 3


def test_a_run_that_is_given_up_ends_its_processes(tmp_path):
  paths = [tmp_path / str(i) for i in range(50)]
  run = worker_pool.run_tasks(work.note_process, paths, 2)
  next(run)
  run.close()
  processes = {int(path.read_text()) for path in tmp_path.iterdir()}
  assert len(list(tmp_path.iterdir())) < 10
  for process in processes:
    with pytest.raises(ProcessLookupError):
      os.kill(process, 0)


def test_processes_import_what_this_one_does(tmp_path, monkeypatch):
  """Modules in the current folder are not imported instead."""
  (tmp_path / 'queue.py').write_text('raise SystemExit("wrong queue")')
  (tmp_path / 'mlf_jax').mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path, tmp_path / 'a path'])
  assert len(list(worker_pool.run_tasks(work.chatter, [1, 2], 2))) == 2


_PARENT = """
import pathlib, sys
from mlf_jax.data.events import worker_pool
from tests.data import work
# No guard: that this runs twice is what must not happen.
paths = [pathlib.Path(sys.argv[1], str(i)) for i in range(200)]
for path in worker_pool.run_tasks(work.note_process, paths, 2):
  print(path.read_text(), flush=True)
"""


def test_processes_end_with_their_parent(tmp_path):
  # A session of its own, so that its processes can be counted.
  parent = subprocess.Popen(
    [sys.executable, '-c', _PARENT, str(tmp_path)],
    start_new_session=True,
    stdout=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parents[3],
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
