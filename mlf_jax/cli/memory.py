"""`python -m mlf_jax memory`: memory that a training step will take."""

from mlf_jax.cli.argument_types import positive_float
from mlf_jax.cli.configuration import add_config, config_of


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'memory',
    help='memory that a training step of a configuration will take',
    description='Prints the memory of a training step on one device, and the '
    'largest batch that fits, from the compilation of smaller batches. The '
    'fields config.batch_size, config.model.time_steps and config.memory count '
    'most.',
    allow_abbrev=False,
  )
  add_config(parser)
  parser.add_argument(
    '--bytes',
    type=positive_float,
    help='memory of a device, such as 16e9: prints the largest batch as well',
  )
  parser.set_defaults(command_function=_memory)


def _memory(arguments):
  config = config_of(arguments)
  from mlf_jax.training import memory_estimate
  from mlf_jax.training.config import validate
  from mlf_jax.training.sharding import DataParallel

  num_devices = DataParallel(config.parallel).num_devices
  validate(config, num_devices)
  per_device = config.batch_size // num_devices
  print('compiling smaller batches ...', flush=True)
  estimated = memory_estimate.estimate(config, per_device)
  print(
    f'{config.data.name}, T = {config.model.time_steps}, memory '
    f'{config.memory}, batch {config.batch_size} on {num_devices} device'
    f'{"s" * (num_devices > 1)}: {estimated.bytes(per_device) / 1e6:,.0f} MB '
    f'per device ({estimated.fixed / 1e6:,.1f} MB, and '
    f'{estimated.per_sample / 1e6:,.2f} MB for each of its samples)'
  )
  if arguments.bytes:
    largest = memory_estimate.largest_batch(
      config, int(arguments.bytes), per_device, estimated
    )
    if not largest:
      print(f'not even 4 samples fit into {arguments.bytes:,.0f} bytes')
      return 1
    print(
      f'largest batch in {arguments.bytes / 1e6:,.0f} MB: {largest} per '
      f'device, {largest * num_devices} in all'
    )
  return 0
