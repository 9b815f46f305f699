"""What the README says works as it stands there."""

import pathlib
import re
import runpy

import pytest

from mlf_jax import cli
from mlf_jax.training import workdir

REPOSITORY = pathlib.Path(__file__).parents[1]
README = (REPOSITORY / 'README.md').read_text()


def blocks(language):
  return re.findall(rf'```{language}\n(.*?)```', README, re.DOTALL)


def commands(start):
  lines = [line for block in blocks('sh') for line in block.splitlines()]
  return [line for line in lines if line.startswith(start)]


def test_example_runs():
  (code,) = blocks('python')
  names = {}
  exec(compile(code, 'README.md', 'exec'), names)
  assert names['logits'].shape == (32, 10)
  # Ten lines, but for imports.
  body = [x for x in code.splitlines() if x and 'import' not in x]
  assert len(body) <= 10


@pytest.mark.parametrize('command', commands('python train.py'))
def test_training_commands_are_understood(command, monkeypatch, capsys):
  monkeypatch.chdir(REPOSITORY)
  arguments = command.split()[1:]
  assert cli.train_main([*arguments, '--help']) == 0
  output = capsys.readouterr().out
  for argument in arguments[1:]:
    if argument.startswith('--config.'):
      assert argument in output


@pytest.mark.parametrize('command', commands('python -m mlf_jax'))
def test_other_commands_are_understood(command, capsys, tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  monkeypatch.chdir(REPOSITORY)
  arguments = command.replace('DIR', '/nowhere').split()[3:]
  # No such run or folder, or a batch that is refused; anything else would exit.
  refused = '/nowhere'
  if '--config' in command:
    arguments.append('--config.batch_size=8')
    refused = 'at least 4 samples a device'
  assert cli.main(arguments) == 2
  assert refused in capsys.readouterr().err


def test_default_workdir_is_the_one_shown():
  configuration = runpy.run_path(str(REPOSITORY / 'configs' / 'digits.py'))
  assert f'output in {workdir.default(configuration["get_config"]())}' in README


def test_ci_runs_the_commands():
  install_and_train, install_and_test = commands('pip install -e')
  assert install_and_train.endswith('&& python train.py')
  assert install_and_test.endswith('&& python -m pytest')
  train_events, *_ = commands('python train.py --config=configs/moving')
  (stream,) = commands('python examples')
  ci = (REPOSITORY / '.ci' / 'run').read_text()
  for part in (
    'python train.py',
    'python -m pytest',
    train_events,
    stream.removesuffix(' --workdir DIR'),
  ):
    assert f"command_of '{part}'" in ci
