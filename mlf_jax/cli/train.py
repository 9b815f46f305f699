"""`python -m mlf_jax train`, the same as `python train.py`."""

import sys

from mlf_jax.cli.configuration import add_config, config_of


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'train',
    help='train a network, or continue where an earlier call stopped',
    description='Trains a spiking network. The same command continues an '
    'unfinished run.',
    allow_abbrev=False,
    add_help=False,
  )
  add_config(parser)
  parser.add_argument(
    '--workdir',
    default='',
    help='directory of the run; by default one under runs/ that belongs to the '
    'configuration',
  )
  parser.add_argument(
    '-h', '--help', action='store_true', help='list the fields and exit'
  )
  parser.set_defaults(command_function=_train, format_help=parser.format_help)


def _train(arguments):
  config = config_of(arguments)
  from mlf_jax.training.config import help_text

  if arguments.help:
    print(arguments.format_help())
    print(f'fields of {arguments.config}, with their values:\n')
    print(help_text(config))
    return 0
  # Imported only now: it takes seconds, which `--help` need not wait.
  from mlf_jax.training import Interrupted, train

  try:
    train(config, workdir=arguments.workdir)
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal_number
  return 0
