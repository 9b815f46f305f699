"""`python -m mlf_jax evaluate`: test accuracy of a checkpoint."""

from mlf_jax.cli.argument_types import positive_int
from mlf_jax.cli.configuration import add_run, from_file


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
  parser.set_defaults(command_function=_evaluate)


def _evaluate(arguments):
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.training import evaluate

  which = arguments.workdir, arguments.checkpoint, arguments.time_steps
  evaluate(*which)
  if arguments.cost:
    from mlf_jax.analysis.cost import evaluate_cost

    evaluate_cost(*which)
