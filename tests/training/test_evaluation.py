"""Evaluation of checkpoints, which leaves the run as it is."""

import json

import jax
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.training import evaluate, restore
from tests import quick


def test_evaluate_prints_and_stores(finished, copied, capsys):
  directory, result = copied, finished[1]
  line = evaluate(str(directory), 'last')
  assert f'test/accuracy {line["test/accuracy"]:.4f}' in capsys.readouterr().out
  assert line['test/accuracy'] == result['test/accuracy']
  assert line['test/loss'] == pytest.approx(result['test/loss'], rel=1e-6)
  best = evaluate(directory)
  assert (best['step'], best['test/accuracy']) == (
    result['best/step'],
    result['best/test/accuracy'],
  )
  longer = evaluate(directory, 'last', time_steps=5)
  assert longer['time_steps'] == 5
  assert longer['test/loss'] != line['test/loss']
  stored = (directory / 'evaluations.jsonl').read_text().splitlines()
  assert [json.loads(s) for s in stored] == [line, best, longer]


def test_evaluate_equals_the_network_applied_by_hand(finished):
  """All 359 samples once, though no batch size divides them."""
  directory, result = finished
  restored, digits = restore(directory, 'last'), data.load('digits')
  pixels = digits.test.images / digits.scale
  images = (pixels - np.array(digits.mean)) / np.array(digits.std)
  logits = quick.jit(restored.model.apply)(
    restored.state.eval_variables, images.astype(np.float32)
  )
  labels = digits.test.labels
  correct = np.asarray(logits).argmax(-1) == labels
  losses = -np.asarray(jax.nn.log_softmax(logits))[
    np.arange(len(labels)), labels
  ]
  assert result['test/loss'] == pytest.approx(losses.mean(), rel=1e-5)
  assert result['test/accuracy'] == pytest.approx(correct.mean(), abs=1e-6)


def test_evaluate_moves_nothing_of_a_run(copied, capsys):
  def damage(step):
    for path in (copied / 'checkpoints' / step).rglob('*'):
      if path.is_file():
        path.write_bytes(b'')

  damage('6')
  assert restore(copied, 'last').step == 3
  assert 'checkpoint of step 6 is corrupt' in capsys.readouterr().err
  assert (copied / 'checkpoints' / '6').is_dir()
  damage('3')
  with pytest.raises(UserError, match=r'corrupt ones are in .*/checkpoints;'):
    evaluate(copied, 'last')
  assert not (copied / 'checkpoints_corrupt').exists()
