"""Runs of several processes, on this machine: numbers, agreement, faults."""

import signal
import time

import numpy as np
import pytest

from mlf_jax.errors import UserError
from mlf_jax.training import processes, restore, train
from tests.training import in_processes, step_in_processes
from tests.training.test_trainer import long_config, metrics

# --- Numbers ---


@pytest.mark.parametrize(
  ('count', 'cases'),
  [
    (2, [('ds', 'frames'), ('plain', 'digits')]),
    (4, [('plain', 'frames'), ('ds', 'digits')]),
  ],
)
@pytest.mark.slow
def test_processes_give_the_numbers_of_one_device(tmp_path, count, cases):
  """Loss, update, running statistics and counts, in float64."""
  path = tmp_path / 'numbers.npz'
  started = in_processes.start(
    count,
    path,
    ','.join(map('-'.join, cases)),
    module='tests.training.step_in_processes',
  )
  expected = {case: step_in_processes.numbers(*case) for case in cases}
  for ended in in_processes.wait(started):
    assert ended.code == 0, ended.err
  got = np.load(path)
  for (residual, kind), alone in expected.items():
    assert alone["['evaluation']['count']"] == step_in_processes.TEST_SAMPLES
    for name, value in alone.items():
      np.testing.assert_allclose(
        got[f'{residual} {kind} {name}'],
        value,
        rtol=1e-10,
        atol=1e-10,
        err_msg=name,
      )


# --- Agreement ---


def test_processes_agree():
  """Values, errors and what differs are the same in all, also in a late one."""
  first, second = in_processes.wait(
    in_processes.start(2, module='tests.training.agree_in_processes', pause=3)
  )
  assert first.code == second.code == 0, first.err + second.err
  assert first.out.splitlines() == [
    'value of 0',
    'no such file',
    '0 is fine',
    'process 1: no such file',
    'the processes of a run need the same command: seed is 0 in process 0 and '
    "1 in process 1; --workdir is 'a' in process 0 and 'absent' in process 1",
  ]
  assert second.out == first.out.replace('0 is fine', '1 is fine')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'outside of Slurm, Kubernetes, Open MPI and Cloud TPU give --coord'),
    (('127.0.0.1:1',), '--num_processes and --process_id is missing: give'),
    (('127.0.0.1', 2, 0), 'must be HOST:PORT, such as 127.0.0.1:8476'),
  ],
)
def test_processes_that_cannot_join(arguments, message):
  with pytest.raises(UserError, match=message):
    processes.initialize(*arguments)


@pytest.fixture
def config_file(tmp_path):
  path = tmp_path / 'long.py'
  path.write_text(
    'from tests.training.test_trainer import long_config as get_config\n'
  )
  return f'--config={path}'


@pytest.mark.slow
def test_another_configuration_is_named_by_all(tmp_path, config_file):
  """The processes find each other as on Slurm."""
  workdir = f'--workdir={tmp_path / "run"}'
  started = in_processes.start(
    2,
    *('train', config_file, workdir),
    slurm=True,
    own=[[], ['--config.seed=1']],
  )
  for ended in in_processes.wait(started):
    assert ended.code == 2
    assert 'config.seed is 0 in process 0 and 1 in process 1' in ended.err
    assert 'Traceback' not in ended.err
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_stopped_runs_continue_in_other_numbers_of_processes(
  tmp_path, config_file
):
  """2 -> 1 -> 2; only one of the processes gets the signal."""
  run, alone = tmp_path / 'run', tmp_path / 'alone'
  train(long_config(), workdir=alone)
  arguments = 'train', config_file, f'--workdir={run}'
  ended = in_processes.wait(
    in_processes.start(2, *arguments, signals={1: (10, signal.SIGTERM)})
  )
  assert [e.code for e in ended] == [128 + signal.SIGTERM] * 2, ended[0].err
  stopped = {e.err.splitlines()[-1] for e in ended}
  assert len(stopped) == 1 and 'interrupted at step ' in stopped.pop()
  (ended,) = in_processes.wait(
    in_processes.start(1, *arguments, signals={0: (25, signal.SIGINT)})
  )
  assert ended.code == 128 + signal.SIGINT
  ended = in_processes.wait(in_processes.start(2, *arguments))
  assert [e.code for e in ended] == [0, 0], ended[0].err
  assert 'continuing from step 26' in ended[0].out and not ended[1].out
  for ours, theirs in zip(metrics(run), metrics(alone), strict=True):
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
  states = [restore(directory, 'last').state for directory in (run, alone)]
  assert states[0].step == states[1].step == 40


# --- Faults ---


@pytest.mark.slow
def test_a_directory_that_cannot_be_written_ends_all(tmp_path, config_file):
  (tmp_path / 'file').touch()
  place = tmp_path / 'file' / 'run'
  started = in_processes.start(2, 'train', config_file, f'--workdir={place}')
  for ended in in_processes.wait(started):
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith('error: ')
    assert 'cannot write to the workdir' in ended.err


@pytest.mark.slow
def test_a_full_disk_ends_all_within_a_minute(tmp_path, config_file):
  """The process that writes says it; without it JAX ends the others."""
  arguments = 'train', config_file, f'--workdir={tmp_path / "run"}'
  began = time.monotonic()
  started = in_processes.start(2, *arguments, file_bytes=1 << 12)
  ended = in_processes.wait(started)
  assert time.monotonic() - began < 100
  lines = [line for each in ended for line in each.err.splitlines()]
  assert any(x.startswith('error: cannot save a checkpoint') for x in lines)
  assert all(each.code for each in ended)


@pytest.mark.slow
def test_the_others_of_a_killed_process_stop_within_a_minute(
  tmp_path, config_file
):
  arguments = 'train', config_file, f'--workdir={tmp_path / "run"}'
  started = in_processes.start(2, *arguments, signals={1: (20, signal.SIGKILL)})
  started[1].wait(timeout=120)
  began = time.monotonic()
  ended = in_processes.wait(started)
  assert time.monotonic() - began < 60
  assert ended[1].code == -signal.SIGKILL and ended[0].code
  # What was saved is intact, and one process can go on with it.
  train(long_config(), workdir=tmp_path / 'run')
