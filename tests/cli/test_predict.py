"""`python -m mlf_jax predict`: what a person sees."""

import json

import numpy as np
import pytest

from mlf_jax import data, load
from mlf_jax.__main__ import main

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_classes_are_those_of_the_loaded_network(finished, tmp_path, capsys):
  images = data.load('digits').test.images[:3]
  np.save(tmp_path / 'three.npy', images)
  np.save(tmp_path / 'one.npy', images[1])
  names, probabilities = load(finished[0]).predict(images)
  run = ['predict', '--workdir', str(finished[0])]
  files = [str(tmp_path / f'{name}.npy') for name in ('three', 'one')]
  assert main([*run, *files]) == 0
  lines = capsys.readouterr().out.splitlines()
  shown = [
    f'{name}  {each.max():.3f}'
    for name, each in zip(names, probabilities, strict=True)
  ]
  assert lines == [
    *(f'{files[0]}[{i}]  {line}' for i, line in enumerate(shown)),
    f'{files[1]}  {shown[1]}',
  ]

  assert main([*run, '--json', files[0]]) == 0
  for i, line in enumerate(capsys.readouterr().out.splitlines()):
    entry = json.loads(line)
    assert (entry['sample'], entry['class']) == (i, names[i])
    np.testing.assert_allclose(
      list(entry['probability'].values()), probabilities[i], atol=1e-6
    )


def test_a_file_that_is_not_there_is_said(finished, capsys):
  arguments = ['--workdir', str(finished[0]), 'cat.png']
  assert main(['predict', *arguments]) == 2
  assert capsys.readouterr().err == 'error: cat.png is no file\n'
