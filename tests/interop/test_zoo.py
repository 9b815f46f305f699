"""Networks that come with the package: what their cards say, and new ones."""

import json
import pathlib

import numpy as np
import pytest

import mlf_jax
from mlf_jax import UserError, cli, data
from mlf_jax.interop import zoo

NAMES = ['digits', 'moving_digits']
FOLDER = pathlib.Path(mlf_jax.__file__).parent / 'zoo'


def test_cards_are_measured_again(capsys):
  assert zoo.names() == NAMES
  assert cli.main(['zoo', '--verify']) == 0
  output = capsys.readouterr().out
  for name in NAMES:
    card = zoo.entry(name).card
    assert f'{name}: {card["network"]}, ' in output
    assert f'test accuracy {card["test_accuracy"]:.4f}' in output
    assert card['data_licence'] and card['versions']['jax']
    for path in (FOLDER / name).iterdir():
      assert path.stat().st_size < 1_000_000
  assert output.count('measured again: ') == len(NAMES)


def test_a_network_is_used_like_that_of_a_run():
  images = data.load('digits').test.images[:5]
  net, shorter = (mlf_jax.load('zoo:digits', time_steps=t) for t in (None, 2))
  assert net.model.time_steps == 4 and shorter.model.time_steps == 2
  assert net.predict(images).probabilities.shape == (5, 10)
  assert not np.array_equal(net(images), shorter(images))
  with pytest.raises(UserError, match=r"zoo 'digit' is unknown.*digits"):
    mlf_jax.load('zoo:digit')


def test_a_finished_run_is_packed(finished, tmp_path, monkeypatch):
  workdir, _ = finished
  folder = zoo.pack(workdir, 'mine', 'public domain', tmp_path)
  assert {path.name for path in folder.iterdir()} == {
    'weights.npz',
    'card.json',
  }
  monkeypatch.setattr(zoo, '_FOLDER', tmp_path)
  images = data.load('digits').test.images
  packed, net = mlf_jax.load('zoo:mine'), mlf_jax.load(workdir, 'last')
  np.testing.assert_array_equal(packed(images), net(images))
  assert packed.step == net.step
  card = json.loads((folder / 'card.json').read_text())
  result = json.loads((pathlib.Path(workdir) / 'result.json').read_text())
  assert card['test_accuracy'] == result['test/accuracy']

  card['test_accuracy'] -= 2 / 359
  (folder / 'card.json').write_text(json.dumps(card))
  assert cli.main(['zoo', '--verify']) == 2
