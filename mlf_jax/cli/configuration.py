"""`--config` and the fields that are set after it."""

import argparse
import importlib.util
import inspect
import pathlib
import re
import runpy
import traceback
import typing

import ml_collections
from absl import flags
from ml_collections import config_flags

from mlf_jax.errors import UserError, unknown

if typing.TYPE_CHECKING:
  from mlf_jax.studies import Study

# Below the top of the repository, or of the installed package.
_FOLDER = pathlib.Path(__file__).parents[2] / 'configs'


def add_config(parser: argparse.ArgumentParser) -> None:
  """Adds `--config` to a command whose other arguments may set fields."""
  parser.add_argument(
    '--config',
    default='digits',
    metavar='NAME[:VARIANT]',
    help='name or path of a configuration file, with a variant after a colon '
    'where it has some (default: digits, which needs no download); fields are '
    'set as --config.FIELD=VALUE',
  )
  parser.set_defaults(takes_fields=True)


def add_run(parser: argparse.ArgumentParser) -> None:
  """Adds `--workdir`, `--checkpoint` and `--config` of a trained run."""
  parser.add_argument('--workdir', required=True, help='directory of the run')
  parser.add_argument(
    '--checkpoint',
    choices=('best', 'last'),
    default='best',
    help='which checkpoint (best: highest test accuracy)',
  )
  parser.add_argument(
    '--config',
    help='configuration file that registers parts of your own, such as a unit, '
    'with which the run was trained',
  )
  parser.set_defaults(takes_fields=False)


def config_of(
  arguments: argparse.Namespace, config: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
  """The configuration that the command line asks for.

  Args:
    arguments: parsed arguments with `config` and, left over, `fields`.
    config: what the fields change; by default the file that `config` names.

  Raises:
    UserError: a mistake in the file or in a field, in one line.
  """
  if config is None:
    config = from_file(arguments.config)
  values = flags.FlagValues()
  argv = ['', *_last_of_each(arguments.fields)]
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=argv
    )
    rest = values(argv)[1:]
  except (AttributeError, KeyError) as error:
    raise UserError(f'--config: no such field: {_one_line(error)}') from None
  except (flags.Error, TypeError, ValueError) as error:
    text = ' '.join(str(error).split())
    # "flag --config.augment.flip=3: ('Non-boolean argument ...', '3')"
    raise UserError(re.sub(r"\('(.*)', .*\)$", r'\1', text)) from None
  if rest:
    raise UserError(
      f'unexpected argument {rest[0]!r}; fields are set as --config.FIELD=VALUE'
    )
  return values.config


def from_file(name: str) -> ml_collections.ConfigDict:
  """Runs a configuration file; what it registers is known from then on.

  Args:
    name: name of an installed configuration or path of a file, with a variant
      after a colon.

  Raises:
    UserError: there is no such file, or a mistake in it, with its line.
  """
  return _from_file(name, '--config', '', ml_collections.ConfigDict)


def study_from_file(name: str) -> 'Study':
  """Runs the file of a study.

  Args:
    name: name of an installed study or path of a file, with a variant after a
      colon.

  Raises:
    UserError: there is no such file, or a mistake in it, with its line.
  """
  from mlf_jax.studies import Study

  return _from_file(name, 'study', 'studies', Study)


def _from_file(name, option, folder, kind):
  """Calls `get_config` of a configuration file, `get_study` of a study."""
  function = 'get_study' if folder else 'get_config'
  name, colon, variant = name.partition(':')
  path = _path_of(name, option, folder)
  try:
    get = runpy.run_path(path).get(function)
    if get is None:
      raise UserError(f'there is no function {function}')
    if colon and not inspect.signature(get).parameters:
      raise UserError(f'there are no variants, got {variant!r}')
    value = get(variant) if colon else get()
  except Exception as error:
    numbers = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == path
    ]
    if isinstance(error, SyntaxError):
      numbers.append(error.lineno)
    place = f'{path}, line {numbers[-1]}' if numbers else path
    text = f'{type(error).__name__}: {_one_line(error)}'
    if isinstance(error, UserError):
      text = str(error)
    raise UserError(f'{option}: {place}: {text}') from None
  if not isinstance(value, kind):
    raise UserError(
      f'{option}: {function} of {path} returns no {kind.__name__}'
    )
  return value


def _path_of(name: str, option: str, subfolder: str) -> str:
  """Path of an installed file or of a file of the user's."""
  spec = importlib.util.find_spec('mlf_jax.configs')
  # A checkout that is not installed has the folder beside the package.
  folder = pathlib.Path(spec.submodule_search_locations[0] if spec else _FOLDER)
  folder /= subfolder
  known = sorted(
    path.stem for path in folder.glob('*.py') if path.stem != '__init__'
  )
  if name in known:
    return str(folder / f'{name}.py')
  if not pathlib.Path(name).is_file():
    raise unknown(f'{option}: no such file, and the name', name, known)
  return name


def _last_of_each(arguments: list[str]) -> list[str]:
  """Keeps the last of a flag that is given more than once.

  Of a tuple, absl would concatenate all values.
  """
  last, name = {}, None
  for argument in arguments:
    if re.match(r'--?[a-zA-Z]', argument):
      name = argument.partition('=')[0]
      last.pop(name, None)
      last[name] = [argument]
    else:
      last.setdefault(name, []).append(argument)
  return [argument for group in last.values() for argument in group]


def _one_line(error: Exception) -> str:
  """Message of an error without what ml_collections adds in further lines."""
  text = str(error.args[0] if error.args else error)
  text = text.replace('\\n', '\n').replace('\\', '').replace("'", '')
  first, *rest = text.splitlines() or ['']
  # A list of all other fields follows.
  first = first.partition('. Other fields')[0].strip()
  hints = re.findall(r'Did you mean .*?\?', ' '.join(rest))
  return '; '.join([first, *hints])
