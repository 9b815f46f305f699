"""The command lines: `train.py` and `python -m mlf_jax`."""

import argparse
import pathlib
import re
import signal
import sys
import warnings
from collections.abc import Callable

import ml_collections
from absl import flags
from ml_collections import config_flags

from mlf_jax.errors import UserError

_MISTAKE = 2

_USAGE = """\
Trains a spiking network with multi-level firing neurons.

usage: python train.py [--config=configs/NAME.py[:VARIANT]] [--workdir=DIR]
                       [--config.FIELD=VALUE ...]

  --config   configuration file, with a variant after a colon where it has
             some; configs/digits.py by default, which needs no download
  --workdir  directory of the run; by default one under runs/ that belongs to
             the configuration. The same command continues an unfinished run.
"""


def train_main(argv: list[str]) -> int:
  """`train.py`: flags, then one call of `mlf_jax.training.loop.train`.

  Args:
    argv: the command line; the first entry is the script, beside `configs/`.

  Returns:
    The exit code: 0, 2 after a mistake, 128 + signal after an interruption.
  """
  return _run(lambda: _train(argv))


def _train(argv):
  config, workdir, wants_help = _parse(argv)
  if wants_help:
    print(_USAGE)
    print('fields of this configuration and their values:\n')
    from mlf_jax.training.config import flatten

    for field, value in flatten(config).items():
      print(f'  --config.{field}={value}')
    return 0
  from mlf_jax.training import loop

  try:
    loop.train(config, workdir)
  except loop.Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal_number
  return 0


def _parse(argv) -> tuple[ml_collections.ConfigDict, str, bool]:
  root = pathlib.Path(argv[0]).resolve().parent
  values = flags.FlagValues()
  # absl would look for --help itself and print flags in its own way.
  wants_help = any(a in ('--help', '-h', '-help') for a in argv[1:])
  argv = [a for a in argv if a not in ('--help', '-h', '-help')]
  _require_config_file(argv, root)
  default = str(root / 'configs' / 'digits.py')
  try:
    config_flags.DEFINE_config_file(
      'config', default, flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string('workdir', '', '', flag_values=values)
    rest = values(argv)[1:]
    config = values.config
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise UserError(_cause(e)) from None
  if rest:
    raise UserError(
      f'unexpected argument {rest[0]!r}; fields are set as --config.FIELD=VALUE'
    )
  return config, values.workdir, wants_help


def _require_config_file(argv, root):
  """A missing file is told here: ml_collections lists where it looked."""
  for i, argument in enumerate(argv):
    name, equals, value = argument.lstrip('-').partition('=')
    if name != 'config' or not argument.startswith('-'):
      continue
    if not equals:
      value = ''.join(argv[i + 1 : i + 2])
    path = value.partition(':')[0]
    if not pathlib.Path(path).is_file():
      known = sorted(p.name for p in (root / 'configs').glob('*.py'))
      raise UserError(
        f'--config: no such file: {path!r}; in configs/ are {", ".join(known)}'
      )


def _cause(error: Exception) -> str:
  """What the mistake is, on one line."""
  text = str(error.args[0] if error.args else error)
  # ml_collections quotes the traceback of what a configuration file raised.
  own = re.search(rf'{UserError.__name__}: (.*)', text)
  if own:
    return own[1]
  text = text.replace('\\n', '\n').replace("\\'", "'").strip()
  if isinstance(error, (AttributeError, KeyError)):
    # The quotes of a KeyError, at times within other quotes.
    text = '--config: no such field: ' + text.replace("'", '')
  return '; '.join(line.strip() for line in text.splitlines())


def main(argv: list[str] | None = None) -> int:
  """`python -m mlf_jax`: what is done with a trained network.

  Args:
    argv: arguments after the program's name; those of the process by default.

  Returns:
    The exit code: 0, or 2 after a mistake.
  """
  parser = argparse.ArgumentParser(prog='python -m mlf_jax')
  commands = parser.add_subparsers(dest='command', required=True)
  evaluate = commands.add_parser(
    'evaluate',
    help='test accuracy of a checkpoint',
    description='Prints the test accuracy of a checkpoint and appends it to '
    'evaluations.jsonl in the workdir.',
  )
  evaluate.add_argument('--workdir', required=True, help='directory of the run')
  evaluate.add_argument(
    '--checkpoint',
    choices=('best', 'last'),
    default='best',
    help='which checkpoint (best: highest test accuracy)',
  )
  evaluate.add_argument(
    '--time_steps',
    type=_positive,
    help='timesteps to run instead of those of training; of frames the first',
  )
  arguments = parser.parse_args(argv)

  def run():
    from mlf_jax.training import evaluation

    evaluation.evaluate(
      arguments.workdir, arguments.checkpoint, arguments.time_steps
    )
    return 0

  return _run(run)


def _positive(text: str) -> int:
  if not text.isdigit() or not int(text):
    raise argparse.ArgumentTypeError(f'{text} is no number of timesteps')
  return int(text)


def _run(command: Callable[[], int]) -> int:
  """Runs a command; a mistake is one line, a traceback is for bugs."""
  with warnings.catch_warnings():
    warnings.showwarning = _show_warning
    try:
      return command()
    except UserError as error:
      print(f'error: {error}', file=sys.stderr)
      return _MISTAKE
    except KeyboardInterrupt:
      print('interrupted', file=sys.stderr)
      return 128 + signal.SIGINT


def _show_warning(message, category, filename, lineno, file=None, line=None):
  del category, filename, lineno, line
  print(f'warning: {message}', file=file or sys.stderr)
