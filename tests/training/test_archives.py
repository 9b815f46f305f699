"""The paper's configurations from the archives to a result.

The data sets are miniatures, simulated, in the published formats; networks and
frames are small, or each run would take minutes.
"""

import json
import urllib.request

import pytest

from mlf_jax.cli import main
from tests.data import event_trees, miniature, recordings

pytestmark = pytest.mark.usefixtures('quick_compilation')


def write_images(folder):
  folder.mkdir()
  miniature.write_cifar_archive(
    folder / 'cifar-10-binary.tar.gz', per_file=4, seed=0
  )


def write_gestures(folder):
  files, _ = event_trees.dvs_gesture([1, 2, 24])
  files |= event_trees.trial_lists(files, (24,))
  folder.mkdir()
  event_trees.write_tar(folder / 'DvsGesture.tar.gz', files)


def write_recorded_images(folder):
  events = event_trees.cifar10_dvs(10, count=100)
  event_trees.write_zips(
    folder, {name: recordings.cifar10_dvs(e) for name, e in events.items()}
  )


@pytest.mark.parametrize(
  ('name', 'write', 'changes', 'samples', 'split', 'accuracy'),
  [
    ('cifar10', write_images, ('num_steps=2',), (20, 4), 'official', 0),
    (
      'dvs_gesture',
      write_gestures,
      ('data.window_ms=100.0', 'data.downsample=8.0', 'num_steps=2'),
      (22, 11),
      'official',
      0,
    ),
    (
      'cifar10_dvs',
      write_recorded_images,
      ('data.window_ms=25.0', 'data.downsample=8.0', 'num_epochs=30'),
      (90, 10),
      'tail',
      0.9,
    ),
  ],
)
@pytest.mark.filterwarnings('default:.*SHA-256', 'ignore:.*has MD5')
@pytest.mark.slow
def test_archives_to_result(
  tmp_path, capsys, name, write, changes, samples, split, accuracy
):
  """The simulated classes of CIFAR10-DVS can be told apart, and are."""
  write(tmp_path / 'manual')
  batch = max(n for n in (8, 16, 24) if n <= samples[0])
  smaller = (
    *changes,
    f'batch_size={batch}',
    'eval_batch_size=16',
    'eval_every_epochs=30.0',
    'model.depth=8',
    'model.widths=(8,8,8)',
    'model.time_steps=3',
    'unit.thresholds=(0.6,)',
    f'data.dir={tmp_path / "prepared"}',
  )
  directory = tmp_path / 'run'
  code = main(
    [
      *('train', f'--config={name}', f'--workdir={directory}'),
      f'--config.data.manual_dir={tmp_path / "manual"}',
      *(f'--config.{change}' for change in smaller),
    ]
  )
  output = capsys.readouterr()
  assert code == 0, output.err
  # The checksum of a miniature is not the published one.
  expected = 'SHA-256' if name == 'cifar10' else 'Converting recordings'
  assert expected in output.err
  result = json.loads((directory / 'result.json').read_text())
  assert (result['data'], result['split_name']) == (name, split)
  assert (result['train_samples'], result['test_samples']) == samples
  assert result['skipped_steps'] == 0
  assert result['test/accuracy'] >= accuracy
  # The prepared copy is enough from now on.
  for path in (tmp_path / 'manual').iterdir():
    path.unlink()
  code = main(['evaluate', f'--workdir={directory}', '--time_steps=2'])
  assert code == 0 and 'T = 2' in capsys.readouterr().out


def test_missing_data_without_network_is_one_line(tmp_path, capsys):
  """A proxy that nobody listens on stands for a missing network."""
  proxy = urllib.request.ProxyHandler({'https': 'http://127.0.0.1:9'})
  urllib.request.install_opener(urllib.request.build_opener(proxy))
  try:
    code = main(
      [
        *('train', '--config=cifar10', f'--workdir={tmp_path / "run"}'),
        f'--config.data.dir={tmp_path / "prepared"}',
      ]
    )
  finally:
    urllib.request.install_opener(None)
  (message,) = capsys.readouterr().err.splitlines()
  assert code == 2 and message.startswith('error: ')
  for part in ('cifar-10-binary.tar.gz', '170 MB', '--config.data.manual_dir'):
    assert part in message
  assert not (tmp_path / 'run').exists()
