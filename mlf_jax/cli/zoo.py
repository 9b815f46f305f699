"""`python -m mlf_jax zoo`: the trained networks that come with the package."""

from mlf_jax.errors import UserError


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'zoo',
    help='list the trained networks of the package, or measure them again',
    description='Lists the trained networks that come with the package, for '
    "mlf_jax.load('zoo:NAME').",
    allow_abbrev=False,
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='measure the test accuracy of each again; one that is off by more '
    'than one sample is an error',
  )
  parser.set_defaults(command_function=_zoo, takes_fields=False)


def _zoo(arguments):
  from mlf_jax.interop import zoo

  wrong = []
  for name in zoo.names():
    entry = zoo.entry(name)
    card = entry.card
    print(
      f'{name}: {card["network"]}, {card["parameters"]:,} parameters\n'
      f'  {card["data"]}, split {card["split"]}, seed {card["seed"]}, step '
      f'{card["step"]:,}: test accuracy {card["test_accuracy"]:.4f}\n'
      f'  data: {card["data_licence"]}'
    )
    if arguments.verify:
      accuracy, samples = _measured(name, entry.config)
      print(f'  measured again: {accuracy:.4f}', flush=True)
      if abs(accuracy - card['test_accuracy']) * samples > 1.5:
        wrong.append(name)
  if wrong:
    raise UserError(f'more than one sample off: {", ".join(wrong)}')
  return 0


def _measured(name, config):
  """Test accuracy of a network, and the number of test samples."""
  from mlf_jax.interop.trained import load
  from mlf_jax.training import configured_data

  test = configured_data.load_dataset(config).test
  net = load(f'zoo:{name}')
  decisions = net(test.images).argmax(-1)
  return float((decisions == test.labels).mean()), len(test)
