"""The command lines: `train.py` and `python -m mlf_jax`."""

import argparse
import inspect
import pathlib
import re
import runpy
import signal
import sys
import traceback
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
    from mlf_jax.training import config as config_lib

    for field, value in config_lib.flatten(config).items():
      choices = config_lib.CHOICES.get(field, ())
      names = ', '.join(name or "''" for name in choices)
      print(f'  --config.{field}={value}' + (f'  ({names})' if names else ''))
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
  # absl would look for --help itself and print flags in its own way.
  wants_help = any(a in ('--help', '-h', '-help') for a in argv[1:])
  argv = [a for a in argv if a not in ('--help', '-h', '-help')]
  argv = _config_first(argv)
  default = str(root / 'configs' / 'digits.py')
  chosen = argv[1] if len(argv) > 1 else ''
  chosen = (
    chosen.removeprefix('--config=') if _names_config(chosen) else default
  )
  _try_config_file(chosen, root)
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_file(
      'config', default, flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string('workdir', '', '', flag_values=values)
    rest = values(argv)[1:]
    config = values.config
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise UserError(_flag_mistake(e)) from None
  if rest:
    raise UserError(
      f'unexpected argument {rest[0]!r}; fields are set as --config.FIELD=VALUE'
    )
  return config, values.workdir, wants_help


def _names_config(argument):
  return argument.startswith('--config=')


def _config_first(argv):
  """Flags as `--name=value`, the config first, as ml_collections needs it."""
  flags_given, others = {}, []
  for argument in argv[1:]:
    if re.match(r'--?[a-zA-Z]', argument):
      name, equals, value = argument.lstrip('-').partition('=')
      # The last one wins; of tuples absl would take all, one after another.
      flags_given.pop(name, None)
      flags_given[name] = equals + value
      open_name = None if equals else name
    elif flags_given and open_name:
      flags_given[open_name] = f'={argument}'
      open_name = None
    else:
      others.append(argument)
  names = sorted(flags_given, key=lambda name: name != 'config')
  return [argv[0], *(f'--{n}{flags_given[n]}' for n in names), *others]


def _try_config_file(chosen: str, root: pathlib.Path) -> None:
  """Runs a configuration file once, so that its mistakes have a line number.

  ml_collections, which reads it again, tells where it looked for a missing
  file, and puts the traceback of what went wrong into the message.
  """
  path, colon, variant = chosen.partition(':')
  if not pathlib.Path(path).is_file():
    known = sorted(p.name for p in (root / 'configs').glob('*.py'))
    raise UserError(
      f'--config: no such file: {path!r}; in configs/ are {", ".join(known)}'
    )
  try:
    get_config = runpy.run_path(path).get('get_config')
    if get_config is None:
      raise UserError(f'--config: {path} has no function get_config')
    if colon and not inspect.signature(get_config).parameters:
      raise UserError(f'--config: {path} has no variants, got {variant!r}')
    config = get_config(variant) if colon else get_config()
    if not isinstance(config, ml_collections.ConfigDict):
      raise UserError(f'--config: get_config of {path} returns no ConfigDict')
  except UserError:
    raise
  except Exception as error:
    where = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == path
    ]
    line = f', line {where[-1]}' if where else ''
    raise UserError(
      f'--config: {path}{line}: {type(error).__name__}: {_essence(error)}'
    ) from None


def _essence(error: Exception) -> str:
  """The message of an error on one line, or just the hint at what was meant."""
  text = str(error.args[0] if error.args else error)
  text = text.replace('\\n', '\n').replace('\\', '').replace("'", '')
  first, *rest = text.splitlines() or ['']
  # ml_collections goes on with a dump of the whole configuration.
  first = first.partition('. Other fields')[0].strip()
  hints = re.findall(r'Did you mean .*?\?', ' '.join(rest))
  return '; '.join([first, *hints])


def _flag_mistake(error: Exception) -> str:
  """What is wrong with a flag, on one line."""
  if isinstance(error, (AttributeError, KeyError)):
    return f'--config: no such field: {_essence(error)}'
  text = ' '.join(str(error).split())
  # "flag --config.augment.flip=3: ('Non-boolean argument ...', '3')"
  return re.sub(r"\('(.*)', .*\)$", r'\1', text)


def main(argv: list[str] | None = None) -> int:
  """`python -m mlf_jax`: what is done before and after training.

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
  evaluate.set_defaults(run=_evaluate)
  _add_prepare(commands)
  _add_memory(commands)
  # What is left over sets fields of a configuration.
  arguments, fields = parser.parse_known_args(argv)
  if fields and arguments.command != 'memory':
    parser.error(f'unrecognized arguments: {" ".join(fields)}')
  arguments.fields = fields
  return _run(lambda: arguments.run(arguments))


def _evaluate(arguments):
  from mlf_jax.training import evaluation

  evaluation.evaluate(
    arguments.workdir, arguments.checkpoint, arguments.time_steps
  )
  return 0


def _add_memory(commands):
  """The command that says what training would take, and trains nothing."""
  memory = commands.add_parser(
    'memory',
    help='memory that a training step of a configuration will take',
    description='Prints the memory of a training step on one device, and the '
    'largest batch that fits, from the compilation of smaller batches. Fields '
    'are set as for train.py: --config=FILE --config.FIELD=VALUE; of these '
    'config.batch_size, config.model.time_steps and config.memory count most.',
  )
  memory.add_argument(
    '--bytes',
    type=_positive_float,
    help='memory of a device, such as 16e9: prints the largest batch as well',
  )
  memory.set_defaults(run=_memory)


def _memory(arguments):
  # As train.py, whose configurations are in the working directory.
  config, workdir, wants_help = _parse(
    [str(pathlib.Path.cwd() / 'train.py'), *arguments.fields]
  )
  if workdir or wants_help:
    raise UserError('memory takes --bytes and --config... alone')
  from mlf_jax.training import config as config_lib
  from mlf_jax.training import footprint, parallel

  num_devices = parallel.DataParallel(config.parallel).num_devices
  config_lib.validate(config, num_devices)
  of_device = config.batch_size // num_devices
  print('compiling smaller batches ...', flush=True)
  predicted = footprint.predict(config, of_device)
  print(
    f'{config.data.name}, T = {config.model.time_steps}, memory '
    f'{config.memory}, batch {config.batch_size} on {num_devices} device'
    f'{"s" * (num_devices > 1)}: {predicted.bytes(of_device) / 1e6:,.0f} MB a '
    f'device ({predicted.fixed / 1e6:,.1f} MB, and '
    f'{predicted.per_sample / 1e6:,.2f} MB for each of its samples)'
  )
  if arguments.bytes:
    largest = footprint.largest_batch(
      config, int(arguments.bytes), of_device, predicted
    )
    if not largest:
      print(f'not even 4 samples fit into {arguments.bytes:,.0f} bytes')
      return 1
    print(
      f'largest batch in {arguments.bytes / 1e6:,.0f} MB: {largest} a device, '
      f'{largest * num_devices} in all'
    )
  return 0


def _add_prepare(commands):
  """The command that converts recordings and trains nothing."""
  prepare = commands.add_parser(
    'prepare',
    help='make frames of the recordings of a data set, and say what is in it',
  )
  prepare.add_argument('name', help='dvs_gesture, cifar10_dvs or n_mnist')
  prepare.add_argument(
    '--manual_dir', default='', help='the archives, or their extracted folder'
  )
  prepare.add_argument(
    '--data_dir',
    default='',
    help='folder of prepared data sets (default: that of TensorFlow Datasets)',
  )
  prepare.add_argument(
    '--time_steps', type=_positive, help='frames a sample (default: the paper)'
  )
  prepare.add_argument(
    '--binning', help="'window', 'span' or 'count' (default: window)"
  )
  prepare.add_argument(
    '--window_ms',
    type=_not_negative,
    help='length of a window in milliseconds, 0 for the other binnings '
    '(default: the paper)',
  )
  prepare.add_argument(
    '--downsample',
    type=_not_negative,
    help='pixels of the sensor a pixel of a frame (default: the paper)',
  )
  prepare.add_argument(
    '--backwards',
    help="'error' (default) skips a recording whose time goes back, 'sort' "
    'puts its events in order',
  )
  prepare.add_argument(
    '--processes', type=_positive, help='processes (default: one a CPU core)'
  )
  prepare.set_defaults(run=_prepare)


def _prepare(arguments):
  from mlf_jax.data import prepared

  frames = prepared.frames_of(
    arguments.name,
    time_steps=arguments.time_steps,
    binning=arguments.binning,
    window_ms=arguments.window_ms,
    downsample=arguments.downsample,
  )
  before = prepared.find(arguments.name, frames, arguments.data_dir)
  if before is not None and arguments.manual_dir:
    warnings.warn(
      f'{before} is prepared already, {arguments.manual_dir} is not looked at: '
      'delete the former to have it prepared again',
      stacklevel=1,
    )
  # As an interruption, so that its processes end with it.
  handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    directory = prepared.prepare(
      arguments.name,
      frames,
      arguments.data_dir,
      arguments.manual_dir,
      arguments.backwards,
      arguments.processes,
    )
  except KeyboardInterrupt:
    print('interrupted; the same command goes on where it was', file=sys.stderr)
    return 128 + signal.SIGINT
  finally:
    signal.signal(signal.SIGTERM, handler)
  print(prepared.describe(directory))
  return 0


def _positive(text: str) -> int:
  if not re.fullmatch('[1-9][0-9]{0,8}', text):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)


def _positive_float(text: str) -> float:
  value = _not_negative(text)
  if not value:
    raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
  return value


def _not_negative(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = -1
  if not 0 <= value < float('inf'):
    raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 on')
  return value


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
