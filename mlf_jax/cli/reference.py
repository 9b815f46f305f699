"""`import-reference` and `export-reference`: weights of the published code."""

from mlf_jax.cli.configuration import add_config, add_run, config_of, from_file


def add_command(commands) -> None:
  """Adds the two commands to the parser."""
  parser = commands.add_parser(
    'import-reference',
    help='weights of the published PyTorch code as a run',
    description='Makes a workdir of a checkpoint of the published PyTorch '
    'code. Every command takes it, train included, which starts from these '
    'weights. A .pth file needs pip install "mlf_jax[torch]".',
    allow_abbrev=False,
  )
  add_config(parser)
  parser.add_argument(
    'file', metavar='FILE', help='a .pth checkpoint, or its arrays in .npz'
  )
  parser.add_argument('--workdir', required=True, help='directory to make')
  parser.set_defaults(command_function=_import)
  parser = commands.add_parser(
    'export-reference',
    help='weights of a run for the published PyTorch code',
    description='Writes the weights of a run under the names of the published '
    'PyTorch code.',
    allow_abbrev=False,
  )
  add_run(parser)
  parser.add_argument(
    '--out', required=True, metavar='FILE', help='.npz or .pth file to write'
  )
  parser.set_defaults(command_function=_export)


def _import(arguments):
  config = config_of(arguments)
  from mlf_jax.interop.reference_run import import_reference

  import_reference(arguments.file, config, arguments.workdir)
  print(f'weights of {arguments.file} in {arguments.workdir}')


def _export(arguments):
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.interop.reference_run import export_reference
  from mlf_jax.interop.trained import load

  net = load(arguments.workdir, arguments.checkpoint)
  print(export_reference(net, arguments.out))
