"""`python -m mlf_jax prepare`: frames of the recordings of a data set."""

import signal
import sys
import warnings

from mlf_jax.cli.argument_types import not_negative_float, positive_int


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'prepare',
    help='make frames of the recordings of a data set, and list its content',
    allow_abbrev=False,
  )
  parser.add_argument('name', help='dvs_gesture, cifar10_dvs or n_mnist')
  parser.add_argument(
    '--manual_dir', default='', help='the archives, or their extracted folder'
  )
  parser.add_argument(
    '--data_dir',
    default='',
    help='folder of prepared data sets (default: that of TensorFlow Datasets)',
  )
  parser.add_argument(
    '--time_steps',
    type=positive_int,
    help='frames per sample (default: the paper)',
  )
  parser.add_argument(
    '--binning', help="'window', 'span' or 'count' (default: window)"
  )
  parser.add_argument(
    '--window_ms',
    type=not_negative_float,
    help='length of a window in milliseconds, 0 for the other binnings '
    '(default: the paper)',
  )
  parser.add_argument(
    '--downsample',
    type=not_negative_float,
    help='sensor pixels per frame pixel (default: the paper)',
  )
  parser.add_argument(
    '--mirrored',
    action='store_true',
    help='mirror the sensor left and right before it is downsampled',
  )
  parser.add_argument(
    '--crop',
    type=positive_int,
    nargs=2,
    default=(0, 0),
    metavar=('HEIGHT', 'WIDTH'),
    help='keep the middle of the sensor, of this size in pixels',
  )
  parser.add_argument(
    '--backwards',
    help="'error' (default) skips a recording whose time goes back, 'sort' "
    'puts its events in order',
  )
  parser.add_argument(
    '--processes', type=positive_int, help='processes (default: one per core)'
  )
  parser.set_defaults(command_function=_prepare, takes_fields=False)


def _prepare(arguments):
  from mlf_jax.data.events import loading

  frames = loading.paper_frames(
    arguments.name,
    time_steps=arguments.time_steps,
    binning=arguments.binning,
    window_ms=arguments.window_ms,
    downsample=arguments.downsample,
    mirrored=arguments.mirrored,
    crop=arguments.crop,
  )
  before = loading.find_prepared(arguments.name, frames, arguments.data_dir)
  if before is not None and arguments.manual_dir:
    warnings.warn(
      f'{before} is prepared already, {arguments.manual_dir} is not looked at: '
      'delete the former to have it prepared again',
      stacklevel=1,
    )
  # A termination is handled like an interruption, so that the worker processes
  # end too.
  handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    directory = loading.prepare(
      arguments.name,
      frames,
      arguments.data_dir,
      arguments.manual_dir,
      arguments.backwards,
      arguments.processes,
    )
  except KeyboardInterrupt:
    print('interrupted; the same command goes on where it was', file=sys.stderr)
    return 128 + signal.SIGINT
  finally:
    signal.signal(signal.SIGTERM, handler)
  print(loading.describe_prepared(directory))
  return 0
