"""Folders and arrays of one's own, trained as `train.py` trains them."""

import json
import shutil

import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.__main__ import main
from mlf_jax.training import evaluate
from tests.data.folders import trees

pytestmark = pytest.mark.usefixtures('quick_compilation')
SMALL = ('--config.num_steps=3', '--config.model.widths=(2, 3, 4)')
COUNTS = {'train/cat': 30, 'train/dog': 30}


def train(config, folder, workdir, *fields):
  """Runs the command; returns what it wrote, or its exit code."""
  fields = (f'--config.data.dir={folder}', *SMALL, *fields)
  code = main(['train', f'--config={config}', f'--workdir={workdir}', *fields])
  if code:
    return code
  return json.loads((workdir / 'result.json').read_text())


def test_a_folder_of_images_trains(tmp_path, capsys):
  folder, workdir = tmp_path / 'pets', tmp_path / 'run'
  trees.write_images(folder, COUNTS, size=(8, 8))
  result = train('folder', folder, workdir)
  assert result['classes'] == ['cat', 'dog']
  assert (result['data'], result['split_name']) == ('pets', 'random-0-20%')
  assert (result['train_samples'], result['test_samples']) == (48, 12)
  assert evaluate(workdir, 'last')['test/accuracy'] == result['test/accuracy']
  # The workdir belongs to these files.
  shutil.rmtree(folder / 'train' / 'cat')
  trees.write_images(folder, {'train/cat': 31}, size=(8, 8))
  capsys.readouterr()
  assert train('folder', folder, workdir) == 2
  assert 'is a run on other samples' in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_recordings_trains(tmp_path):
  folder = tmp_path / 'gestures'
  trees.write_recordings(folder, COUNTS)
  result = train(
    'folder:recordings',
    folder,
    tmp_path / 'run',
    '--config.data.sensor=6x5',
    '--config.model.time_steps=2',
  )
  assert result['classes'] == ['cat', 'dog'] and result['test_samples'] == 12


@pytest.mark.slow
def test_arrays_in_a_file_train(tmp_path):
  images = np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8)
  labels = np.arange(60) % 3
  np.savez(tmp_path / 'arrays.npz', x_train=images, y_train=labels)
  result = train('folder', tmp_path / 'arrays.npz', tmp_path / 'run')
  assert result['train_samples'] == 48 and 'classes' not in result
  assert result['data'] == 'arrays'


def test_the_configuration_is_named_when_the_data_need_the_other(tmp_path):
  from mlf_jax import data

  trees.write_recordings(tmp_path / 'events', COUNTS)
  options = data.LoadOptions(data_dir=str(tmp_path / 'events'))
  with pytest.raises(UserError, match=r'--config=folder:recordings'):
    data.load('folder', options)
