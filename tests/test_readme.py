"""Commands, Python blocks and figures of the documents are what they say."""

import pathlib
import re

import jax
import pytest

from mlf_jax import cli
from tests import quick

REPOSITORY = pathlib.Path(__file__).parents[1]
README = (REPOSITORY / 'README.md').read_text()
DATA, RESULTS, PERFORMANCE, SCALING, STUDIES = (
  (REPOSITORY / 'docs' / f'{name}.md').read_text()
  for name in ('data', 'results', 'performance', 'scaling', 'studies')
)


quickly = pytest.fixture(scope='module', autouse=True)(quick.of_the_library)


def blocks(text, language):
  return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def commands(text):
  return [line for block in blocks(text, 'sh') for line in block.splitlines()]


def commands_of_ci():
  """Commands of the README that `.ci/run` takes from there."""
  script = (REPOSITORY / '.ci' / 'run').read_text()
  starts = re.findall(r"\(readme '(.+)'\)", script)
  assert len(starts) == 5
  return {next(c for c in commands(README) if start in c) for start in starts}


OTHERS = {
  command
  for text in (README, DATA, PERFORMANCE, SCALING, STUDIES)
  for command in commands(text)
}
OTHERS = sorted(OTHERS - commands_of_ci())


@pytest.mark.parametrize('command', OTHERS)
def test_command_is_understood(command, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  arguments = command.replace('DIR', '/nowhere').split()
  if arguments[:2] == ['python', 'train.py']:
    assert cli.main(['train', *arguments[2:], '--help']) == 0
    output = capsys.readouterr().out
    for argument in arguments[2:]:
      if argument.startswith('--config.'):
        assert argument in output
    return
  assert arguments[:3] == ['python', '-m', 'mlf_jax']
  # No such run or folder, or a batch that is refused; anything else would exit.
  refused = '/nowhere'
  if 'memory' in arguments:
    arguments.append('--config.batch_size=8')
    refused = 'at least 4 samples'
  if 'scaling' in arguments:
    arguments += ['--chip', refused]
  if 'study' in arguments:
    arguments += ['--run', refused]
  assert cli.main(arguments[3:]) == 2
  assert refused in capsys.readouterr().err


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  neuron, own_unit = blocks(README, 'python')
  exec(compile(neuron, 'README.md', 'exec'), names := {})
  assert names['logits'].shape == (32, 10)
  names.clear()
  with jax.numpy_dtype_promotion('standard'):
    exec(compile(own_unit, 'README.md', 'exec'), names)
  assert names['result'].keys() >= {'test/accuracy', 'parameters'}
  assert 'arrays' in capsys.readouterr().out


def test_python_of_the_data_document_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  names = {}
  for block in blocks(DATA, 'python'):
    exec(compile(block, 'docs/data.md', 'exec'), names)
  assert len(names['dataset'].test) == 8
  assert names['config'].data.name == 'frame_arrays'
  assert capsys.readouterr().out == '(2, 8, 8, 2)\n1\n(2, 3, 4, 2)\n'


def test_figures_that_the_readme_quotes_are_those_of_the_documents():
  section = README[README.index('## Results') : README.index('## Config')]
  accuracies = re.findall(r'0\.\d{4}', section)
  assert len(accuracies) == 6
  for accuracy in accuracies:
    assert accuracy in RESULTS
  ratios = re.findall(r'([01]\.\d\d) to ([01]\.\d\d) times', section)
  spiking = re.findall(r'training   spiking / ReLU     (\d\.\d\d)', PERFORMANCE)
  # The processor's three networks first, those of the accelerator last.
  for (low, high), quoted in zip(
    ratios, (spiking[:3], spiking[-3:]), strict=True
  ):
    assert (low, high) == (min(quoted), max(quoted))


def test_readme_is_short_and_links_what_exists():
  assert len(README.splitlines()) <= 180
  for link in re.findall(r'\]\(((?!http)[^)#]+)\)', README):
    assert (REPOSITORY / link).exists(), link
