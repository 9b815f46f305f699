"""`python -m mlf_jax train`, the same as `python train.py`."""

import sys

from mlf_jax.cli.configuration import add_config, config_of
from mlf_jax.errors import UserError


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
    '--distributed',
    action='store_true',
    help='one of several processes that train together; on Slurm, Kubernetes, '
    'Open MPI and Cloud TPU they find each other',
  )
  parser.add_argument(
    '--coordinator',
    metavar='HOST:PORT',
    help='address of process 0, where the processes do not find each other',
  )
  parser.add_argument(
    '--num_processes', type=int, help='how many processes there are'
  )
  parser.add_argument(
    '--process_id', type=int, help='number of this process, from 0 on'
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
  from mlf_jax.training import Interrupted, processes, train

  placement = (
    arguments.coordinator,
    arguments.num_processes,
    arguments.process_id,
  )
  if arguments.distributed:
    processes.initialize(*placement)
  elif any(value is not None for value in placement):
    raise UserError(
      '--coordinator, --num_processes and --process_id need --distributed'
    )

  try:
    train(config, workdir=arguments.workdir)
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal_number
  return 0
