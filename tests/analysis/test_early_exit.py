"""Early exits, by hand and from the command line."""

import json

import numpy as np
import pytest

from mlf_jax import UserError, cli
from mlf_jax.analysis.early_exit import Exit, evaluate_early_exit, exit_curve
from tests.analysis import runs


def test_a_sample_stops_once_it_is_confident():
  """Odds of the running mean, by hand: after 1 and 2 timesteps of two."""
  log = np.log
  logits = np.zeros((2, 3, 2))
  logits[:, 0, 1] = log(4), log(4)  # Right, 0.8 from the first timestep on.
  logits[:, 1, 0] = log(4), -3 * log(4)  # First wrong at 0.8, then right: 0.8.
  logits[:, 2, 1] = log(1.5), log(6)  # Right at 0.6, then 0.75.
  labels = np.array([1, 1, 1])
  assert exit_curve(logits, labels, (0.0, 0.7, 0.8 - 1e-9, 0.81)) == [
    Exit(0.0, 1.0, pytest.approx(2 / 3)),
    Exit(0.7, pytest.approx(4 / 3), pytest.approx(2 / 3)),
    Exit(0.8 - 1e-9, pytest.approx(4 / 3), pytest.approx(2 / 3)),
    Exit(0.81, 2.0, 1.0),
  ]
  with pytest.raises(UserError, match='time, sample, classes'):
    exit_curve(logits[0], labels)


def test_the_ends_of_the_curve_are_those_of_fixed_timesteps():
  random = np.random.default_rng(0)
  logits, labels = random.normal(size=(5, 200, 4)), random.integers(0, 4, 200)
  first, *_, last = exit_curve(logits, labels)
  assert first.mean_time_steps == 1
  assert first.accuracy == (logits[0].argmax(-1) == labels).mean()
  assert last.mean_time_steps == 5
  assert last.accuracy == (logits.sum(0).argmax(-1) == labels).mean()


def test_evaluate_prints_and_stores_the_curve(tmp_path, capsys):
  dataset = runs.untrained(tmp_path, (8, 8, 3))
  curve = evaluate_early_exit(tmp_path, 'last', dataset)
  stored = json.loads((tmp_path / 'early_exit.json').read_text())
  assert stored['curve'] == [point._asdict() for point in curve]
  assert stored['checkpoint'] == 'last' and stored['step'] == 3
  first, *lines = capsys.readouterr().out.splitlines()
  assert first == 'confidence  mean timesteps  test accuracy'
  assert len(lines) == len(curve) + 1


def test_what_cannot_stop_early_is_said(tmp_path, capsys):
  dataset = runs.untrained(tmp_path, (8, 8, 3), 'small')
  with pytest.raises(UserError, match='no argument every_timestep'):
    evaluate_early_exit(tmp_path, 'last', dataset)
  command = ['evaluate', f'--workdir={tmp_path}', '--early_exit']
  assert cli.main([*command, '--time_steps=1']) == 2
  assert 'leave out --time_steps' in capsys.readouterr().err
