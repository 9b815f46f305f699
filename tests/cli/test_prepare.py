"""The command `prepare`."""

import signal

import pytest

from mlf_jax import cli
from mlf_jax.data.events import loading
from tests.data.preparing import load, write_gestures


@pytest.mark.filterwarnings('default:.*is prepared already')
@pytest.mark.filterwarnings('ignore:.*has MD5')
def test_prepare_makes_frames_and_describes_them(tmp_path, capsys):
  write_gestures(tmp_path)
  where = [f'--data_dir={tmp_path / "prepared"}']
  manual = [f'--manual_dir={tmp_path / "manual"}']
  options = ['--time_steps=5', '--window_ms=70', '--downsample=16']
  assert cli.main(['prepare', 'dvs_gesture', *where, *manual, *options]) == 0
  out = capsys.readouterr().out
  for part in ('5 recordings', 'hand_clapping', '0 skipped', 'of 70000 us'):
    assert part in out
  assert load('dvs_gesture', tmp_path).test.images.shape == (22, 5, 8, 8, 2)
  # Once prepared, it only describes.
  elsewhere = ['--manual_dir=/elsewhere']
  assert cli.main(['prepare', 'dvs_gesture', *where, *elsewhere, *options]) == 0
  again, err = capsys.readouterr()
  assert again == out
  assert 'is prepared already, /elsewhere is not looked at' in err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['dvs_gestures'], "'dvs_gestures' is unknown (did you mean 'dvs_gesture'"),
    (['n_mnist', '--downsample=35'], 'must be at most 34, the side of the'),
    (['n_mnist', '--crop', '30', '35'], 'sensor, 34 x 34 pixels, got 30 x 35'),
    (['n_mnist'], 'has to be downloaded by hand'),
  ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, message):
  assert cli.main(['prepare', *arguments, f'--data_dir={tmp_path}']) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert message in err


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_preparation_says_how_to_continue(
  monkeypatch, capsys, number
):
  before = signal.getsignal(signal.SIGTERM)
  interrupt = lambda *unused: signal.raise_signal(number)
  monkeypatch.setattr(loading, 'prepare', interrupt)
  assert cli.main(['prepare', 'n_mnist']) == 128 + signal.SIGINT
  err = capsys.readouterr().err
  assert err == 'interrupted; the same command goes on where it was\n'
  assert signal.getsignal(signal.SIGTERM) == before
