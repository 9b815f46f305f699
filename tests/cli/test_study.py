"""A study from the command line: trained, continued, extended, refused."""

import json
import pathlib

import pytest

from mlf_jax.cli import main

REPOSITORY = pathlib.Path(__file__).parents[2]
CONFIG = """
from tests.training import tiny

def get_config():
  return tiny.small(num_steps=4)
"""
STUDY = """
from mlf_jax.studies import Study

def last_loss(workdir, result):
  return {{'last loss': result['test/loss']}}

def nothing(workdir, result):
  return {{'nothing': float('nan')}}

def get_study():
  return Study(
    'Does it learn faster?',
    {{
      'slow': {{'optimizer.learning_rate': 1e-4}},
      'fast': {{'optimizer.learning_rate': 1e-2}},
    }},
    measures=(last_loss, nothing),
    config={config!r},
    fields={{'batch_size': 32}},
  )
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
  """A study of one's own, with a network that the tests register."""
  monkeypatch.setenv('PYTHONPATH', str(REPOSITORY))
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'small.py').write_text(CONFIG)
  path = tmp_path / 'mine.py'
  path.write_text(STUDY.format(config=str(tmp_path / 'small.py')))
  return ['study', str(path)]


@pytest.mark.slow
def test_a_study_is_trained_then_extended_without_repeating(
  study, tmp_path, capsys
):
  assert main([*study, '--seeds=1', '--processes=2']) == 0
  out = capsys.readouterr().out
  assert 'Does it learn faster?\n2 cells, 1 seeds: 2 runs, 0 of them' in out
  assert '| | last loss | nothing |\n| --- | --- | --- |\n| slow | ' in out
  (workdir,) = (tmp_path / 'runs').iterdir()
  assert workdir.name.startswith('study-mine-')
  first = (workdir / 'slow' / 'seed0' / 'metrics.jsonl').read_bytes()
  config = json.loads((workdir / 'slow/seed0/config.json').read_text())
  assert config['batch_size'] == 32
  assert config['optimizer']['learning_rate'] == 1e-4

  assert main([*study, '--seeds=2']) == 0
  assert '4 runs, 2 of them finished' in capsys.readouterr().out
  assert (workdir / 'slow/seed0/metrics.jsonl').read_bytes() == first
  results = json.loads((workdir / 'results.json').read_text())
  slow, fast = (
    results['cells'][cell]['measures']['last loss'] for cell in ('slow', 'fast')
  )
  assert len(slow['values']) == 2 and fast['mean'] < slow['mean']
  assert {path.name for path in workdir.iterdir()} == {
    *('slow', 'fast', 'table.md', 'results.json', 'plot.png')
  }


def test_one_run_alone_and_a_configuration_of_the_command_line(
  study, tmp_path, capsys
):
  """The fields that make the study small are then left out."""
  command = [*study, '--config=small.py', '--config.num_steps=2']
  command += [f'--workdir={tmp_path}/own']
  assert main([*command, '--run=fast:1']) == 0
  run = tmp_path / 'own' / 'fast' / 'seed1'
  config = json.loads((run / 'config.json').read_text())
  assert (config['batch_size'], config['num_steps']) == (64, 2)
  assert config['seed'] == 1
  measured = json.loads((run / 'measured.json').read_text())
  assert measured['values'].keys() == {'last loss', 'nothing'}
  capsys.readouterr()
  assert main([*command, '--run=quick:1']) == 2
  assert 'one of the cells slow, fast' in capsys.readouterr().err


def test_runs_that_fail_are_named_and_the_others_are_shown(
  study, tmp_path, capsys
):
  path = pathlib.Path(study[1])
  text = path.read_text()
  body = "  assert 'slow' not in str(workdir), 'no measure'\n  return {"
  path.write_text(text.replace('  return {', body, 1))
  assert main([*study, '--seeds=1']) == 2
  output = capsys.readouterr()
  assert '| slow |  |  |\n| fast | ' in output.out
  assert "1 of 2 runs failed, the first one 'slow:0': " in output.err
  assert 'AssertionError: no measure' in output.err


@pytest.mark.slow
def test_a_training_that_diverges_is_an_outcome(study, capsys):
  path = pathlib.Path(study[1])
  path.write_text(path.read_text().replace('1e-2', '1e30'))
  command = ['--seeds=1', '--config.max_skipped_steps=1']
  assert main([*study, *command]) == 0
  output = capsys.readouterr().out
  assert '| fast; no finite gradient: seed 0 |  |  |' in output
