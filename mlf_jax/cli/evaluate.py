"""`python -m mlf_jax evaluate`: test accuracy of a checkpoint."""

from mlf_jax.cli.argument_types import positive_int
from mlf_jax.cli.configuration import add_run, from_file
from mlf_jax.errors import UserError


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'evaluate',
    help='test accuracy of a checkpoint',
    description='Prints the test accuracy of a checkpoint and appends it to '
    'evaluations.jsonl in the workdir.',
    allow_abbrev=False,
  )
  add_run(parser)
  parser.add_argument(
    '--time_steps',
    type=positive_int,
    help='timesteps to run instead of those of training; of frames the first',
  )
  parser.add_argument(
    '--cost',
    action='store_true',
    help='print synaptic operations per layer and sample, parameters and an '
    'energy estimate too, and write them to cost.json in the workdir',
  )
  parser.add_argument(
    '--early_exit',
    action='store_true',
    help='print accuracy and mean timesteps if each sample stops once its '
    'class has a probability, for several, and write them to early_exit.json',
  )
  parser.set_defaults(command_function=_evaluate)


def _evaluate(arguments):
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.training import evaluate

  if arguments.early_exit and arguments.time_steps:
    raise UserError(
      '--early_exit runs the timesteps of training; leave out --time_steps'
    )
  which = arguments.workdir, arguments.checkpoint, arguments.time_steps
  evaluate(*which)
  if arguments.cost:
    from mlf_jax.analysis.cost import evaluate_cost

    evaluate_cost(*which)
  if arguments.early_exit:
    from mlf_jax.analysis.early_exit import evaluate_early_exit

    evaluate_early_exit(arguments.workdir, arguments.checkpoint)
