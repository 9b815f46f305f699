"""`python -m mlf_jax analyse`: a report of runs, with pictures."""

from mlf_jax.cli.configuration import from_file


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'analyse',
    help='report of a run: activity, mistakes, energy, with pictures',
    description='Writes report.html, which needs no other file, and the '
    'pictures in it to the workdir. Needs Matplotlib: '
    'pip install "mlf_jax[plot]".',
    allow_abbrev=False,
  )
  parser.add_argument('--workdir', required=True, help='directory of the run')
  parser.add_argument(
    '--compare',
    nargs='+',
    default=(),
    metavar='DIR',
    help='directories of further runs, shown beside it; runs that differ in '
    'their seed only are shown together',
  )
  parser.add_argument(
    '--checkpoint',
    choices=('best', 'last'),
    default='best',
    help='which checkpoint (best: highest test accuracy)',
  )
  parser.add_argument(
    '--config',
    help='configuration file that registers parts of your own, such as a unit, '
    'with which the runs were trained',
  )
  parser.set_defaults(command_function=_analyse, takes_fields=False)


def _analyse(arguments):
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.analysis import report

  path = report(
    arguments.workdir,
    compare=arguments.compare,
    checkpoint=arguments.checkpoint,
  )
  print(f'report in {path}')
