"""The commands of the README on event data, from the archives to a result.

The data sets are miniatures, simulated, in the published formats; networks and
frames are small, or each run would take minutes.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import quick
from tests.data import event_trees, recordings

REPOSITORY = pathlib.Path(__file__).parents[2]


def write_gesture(folder):
  files, _ = event_trees.dvs_gesture([1, 2, 3, 4, 24, 25])
  files |= event_trees.trial_lists(files, (24, 25))
  folder.mkdir()
  event_trees.write_tar(folder / 'DvsGesture.tar.gz', files)


def write_cifar(folder):
  events = event_trees.cifar10_dvs(10, count=100)
  event_trees.write_zips(
    folder, {name: recordings.aedat2(e) for name, e in events.items()}
  )


@pytest.mark.parametrize(
  ('name', 'write', 'changes', 'samples', 'split'),
  [
    (
      'dvs_gesture',
      write_gesture,
      # With 30 epochs it depends on the rounding of a processor what is learnt.
      (
        'data.window_ms=100.0',
        'data.downsample=8.0',
        'batch_size=22',
        'num_epochs=120',
      ),
      (44, 22),
      'official',
    ),
    (
      'cifar10_dvs',
      write_cifar,
      (
        'data.window_ms=25.0',
        'data.downsample=8.0',
        'batch_size=30',
        'num_epochs=30',
      ),
      (90, 10),
      'tail',
    ),
  ],
)
def test_archives_to_result(tmp_path, name, write, changes, samples, split):
  write(tmp_path / 'manual')
  (command,) = [
    line
    for line in (REPOSITORY / 'README.md').read_text().splitlines()
    if line.startswith(f'python train.py --config=configs/{name}.py')
  ]
  command = command.replace('DIR', str(tmp_path / 'manual'))
  smaller = (
    *changes,
    'eval_every_epochs=30.0',
    f'eval_batch_size={samples[1]}',
    'model.depth=8',
    'model.widths=(8,8,8)',
    'model.time_steps=4',
    f'data.dir={tmp_path / "prepared"}',
  )
  run = subprocess.run(
    [
      sys.executable,
      *command.split()[1:],
      f'--workdir={tmp_path / "run"}',
      *(f'--config.{change}' for change in smaller),
    ],
    capture_output=True,
    env={**os.environ, 'XLA_FLAGS': quick.FLAGS},
    text=True,
    cwd=REPOSITORY,
    timeout=400,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert 'Converting recordings' in run.stderr
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  assert result['data'] == name and result['split_name'] == split
  assert (result['train_samples'], result['test_samples']) == samples
  assert set(result['split_hash']) == {'train', 'test'}
  assert result['test/accuracy'] >= 0.9
