"""`python -m mlf_jax analyse` from the command line."""

import json
import pathlib
import re
import sys

import pytest

from mlf_jax import analysis
from mlf_jax.cli import main

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'silent.md'


@pytest.fixture
def reported(monkeypatch, tmp_path):
  """Arguments that reach `analysis.report`."""
  calls = []

  def report(*directories, **options):
    calls.append((*directories, options))
    return tmp_path / 'report.html'

  monkeypatch.setattr(analysis, 'report', report, raising=False)
  return calls


def test_the_path_of_the_report_is_printed(reported, capsys, tmp_path):
  assert main(['analyse', '--workdir', 'a']) == 0
  assert reported == [('a', {'compare': (), 'checkpoint': 'best'})]
  assert capsys.readouterr().out == f'report in {tmp_path}/report.html\n'


def test_several_runs_are_compared(reported):
  command = ['analyse', '--workdir=a', '--compare', 'b', 'c']
  assert main([*command, '--checkpoint=last']) == 0
  assert reported == [('a', {'compare': ['b', 'c'], 'checkpoint': 'last'})]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'the following arguments are required: --workdir'),
    (['--workdir=x', '--compare'], '--compare: expected at least one argument'),
    (['--workdir=x', '--checkpoint=worst'], "invalid choice: 'worst'"),
    (['--workdir=/nowhere'], '/nowhere/config.json does not exist'),
  ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
  assert main(['analyse', *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  assert message in error


def test_a_run_with_parts_of_ones_own_names_the_option(capsys, tmp_path):
  names = {'model': 'spiking_resnet', 'data': 'digits', 'unit': 'adaptive'}
  config = {section: {'name': name} for section, name in names.items()}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert main(['analyse', f'--workdir={tmp_path}']) == 2
  error = capsys.readouterr().err
  assert "config.unit.name 'adaptive' is unknown" in error
  assert '--config=FILE' in error and error.count('\n') == 1


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  assert main(['analyse', '--workdir=/nowhere']) == 2
  assert capsys.readouterr().err == (
    'error: pictures need Matplotlib: pip install "mlf_jax[plot]"\n'
  )


def test_commands_of_the_page_about_silent_networks_are_understood(
  capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r'```sh\n(.*?)```', PAGE.read_text(), re.DOTALL)
  commands = [line for block in blocks for line in block.splitlines()]
  assert len(commands) > 8
  for command in commands:
    words = command.split()
    if words[1] == 'train.py':
      assert main(['train', *words[2:], '--help']) == 0
      assert f'{words[2]}\n' in capsys.readouterr().out
    else:
      assert words[:4] == ['python', '-m', 'mlf_jax', 'analyse']
      # There is no such run here; a misspelt argument would say otherwise.
      assert main(words[3:]) == 2
      assert f'{words[5]}/config.json does not exist' in capsys.readouterr().err
