"""JSON files of a run: whole or not there, and errors in one line."""

import json
import os

import pytest

from mlf_jax.errors import UserError
from mlf_jax.training.workdir import read_json, write_json


def test_write_json(tmp_path):
  path = tmp_path / 'result.json'
  write_json(path, {'accuracy': 0.5})
  numbers = [float('nan'), float('inf'), -float('inf'), 1.0]
  write_json(path, {'loss': numbers, 'sizes': (1, 2)})
  assert read_json(path) == {'loss': [None, None, None, 1.0], 'sizes': [1, 2]}
  assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
  path = tmp_path / 'result.json'
  write_json(path, {'accuracy': 0.5})

  def fail(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(UserError, match=r'result\.json: No space left') as caught:
    write_json(path, {'accuracy': 0.75})
  assert '\n' not in str(caught.value)
  assert json.loads(path.read_text()) == {'accuracy': 0.5}
