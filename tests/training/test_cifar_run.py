"""`configs/cifar10.py` from the archive to a result, on a miniature one."""

import json
import os
import pathlib
import subprocess
import sys

from tests import quick
from tests.data import miniature

REPOSITORY = pathlib.Path(__file__).parents[2]


def python(*arguments):
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    capture_output=True,
    env={**os.environ, 'XLA_FLAGS': quick.FLAGS},
    text=True,
    timeout=400,
    check=False,
  )


def test_paper_network_from_archive_to_result(tmp_path):
  """Only data directories, batch sizes and number of steps are overridden."""
  manual = tmp_path / 'manual'
  manual.mkdir()
  miniature.write_cifar10_archive(
    manual / 'cifar-10-binary.tar.gz', per_file=4, seed=0
  )
  directory = tmp_path / 'run'
  run = python(
    REPOSITORY / 'train.py',
    f'--config={REPOSITORY}/configs/cifar10.py',
    f'--workdir={directory}',
    f'--config.data.dir={tmp_path / "prepared"}',
    f'--config.data.manual_dir={manual}',
    '--config.batch_size=4',
    '--config.eval_batch_size=4',
    '--config.num_steps=3',
  )
  assert run.returncode == 0, run.stderr
  # The checksum of a miniature is not the published one.
  assert 'warning: ' in run.stderr and 'SHA-256' in run.stderr
  assert 'spiking_resnet with 4,327,754 parameters, T = 4' in run.stdout
  assert 'compiled in ' in run.stdout
  result = json.loads((directory / 'result.json').read_text())
  assert result['steps'] == 3 and result['skipped_steps'] == 0
  assert (result['train_samples'], result['test_samples']) == (20, 4)
  assert result['data'] == 'cifar10' and result['split_name'] == 'official'
  assert 0 <= result['test/accuracy'] <= 1
  # The prepared copy is enough from now on.
  (manual / 'cifar-10-binary.tar.gz').unlink()
  evaluated = python(
    '-m', 'mlf_jax', 'evaluate', '--workdir', directory, '--time_steps', 2
  )
  assert evaluated.returncode == 0, evaluated.stderr
  assert 'T = 2' in evaluated.stdout


def test_missing_data_without_network_is_one_line(tmp_path):
  """A proxy that nobody listens on stands for a missing network."""
  directory = tmp_path / 'run'
  code = (
    'import os, sys; os.environ["https_proxy"] = "http://127.0.0.1:9"; '
    'from mlf_jax import cli; sys.exit(cli.train_main(sys.argv[1:]))'
  )
  run = python(
    '-c',
    code,
    REPOSITORY / 'train.py',
    f'--config={REPOSITORY}/configs/cifar10.py',
    f'--workdir={directory}',
    f'--config.data.dir={tmp_path / "prepared"}',
  )
  assert run.returncode == 2
  assert run.stderr.count('\n') == 1 and run.stderr.startswith('error: ')
  for part in ('cifar-10-binary.tar.gz', '170 MB', '--config.data.manual_dir'):
    assert part in run.stderr
  assert not directory.exists()
