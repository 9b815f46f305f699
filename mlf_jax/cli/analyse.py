"""`python -m mlf_jax analyse`: a report of runs, with pictures."""

from mlf_jax.cli.configuration import add_run, from_file


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
  add_run(parser)
  parser.add_argument(
    '--compare',
    nargs='+',
    default=(),
    metavar='DIR',
    help='directories of further runs, shown beside it; runs that differ in '
    'their seed only are shown together',
  )
  parser.set_defaults(command_function=_analyse)


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
