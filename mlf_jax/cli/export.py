"""`python -m mlf_jax export`: a trained network for other programs."""

import pathlib

from mlf_jax.cli.argument_types import positive_int
from mlf_jax.cli.configuration import add_run, from_file
from mlf_jax.errors import UserError

_FORMATS = ('stablehlo', 'onnx', 'nir')
_SUFFIXES = {
  '.stablehlo': 'stablehlo',
  '.onnx': 'onnx',
  '.nir': 'nir',
  '.h5': 'nir',
}


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'export',
    help='a trained network as StableHLO, ONNX or NIR',
    description='Writes a trained network, with preprocessing, to files that '
    'run without this library: StableHLO, which JAX runs; ONNX, which needs '
    'pip install "mlf_jax[onnx]"; or NIR, which needs "mlf_jax[nir]".',
    allow_abbrev=False,
  )
  add_run(parser)
  parser.add_argument(
    '--out', required=True, metavar='FILE', help='file to write'
  )
  parser.add_argument(
    '--format',
    choices=_FORMATS,
    default='stablehlo',
    help='stablehlo (default), onnx or nir',
  )
  parser.add_argument(
    '--time_steps',
    type=positive_int,
    help='timesteps, which are fixed in the file; those of training by default',
  )
  parser.set_defaults(command_function=_export)


def _export(arguments):
  suffix = pathlib.PurePath(arguments.out).suffix.lower()
  wanted = _SUFFIXES.get(suffix, arguments.format)
  if wanted != arguments.format:
    raise UserError(
      f'--out {arguments.out} has the suffix of --format={wanted}, but '
      f'--format is {arguments.format}: give --format={wanted}, or another '
      'suffix'
    )
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.interop.trained import load

  net = load(arguments.workdir, arguments.checkpoint, arguments.time_steps)
  if arguments.format == 'onnx':
    from mlf_jax.interop.onnx import export_onnx as export
  elif arguments.format == 'nir':
    export = _export_nir
  else:
    from mlf_jax.interop.stablehlo import export_stablehlo as export
  for path in export(net, arguments.out):
    print(f'{path}  {path.stat().st_size:,} bytes')


def _export_nir(net, path):
  from mlf_jax.interop.nir import export_nir

  scaling = net.preprocessing
  path = pathlib.Path(path).expanduser()
  export_nir(
    path,
    net.model,
    net.variables,
    scaling.sample_shape[-3:],
    scale=scaling.scale,
    mean=scaling.mean,
    std=scaling.std,
  )
  return [path]
