"""`python -m mlf_jax predict`: classes of files."""

import json

from mlf_jax.cli.argument_types import positive_int
from mlf_jax.cli.configuration import add_run, from_file


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'predict',
    help='classes of images, arrays or recordings',
    description='Prints the most probable class of each sample in the files, '
    'with its probability.',
    allow_abbrev=False,
  )
  add_run(parser)
  parser.add_argument(
    'files',
    nargs='+',
    metavar='FILE',
    help='an image; a recording; or a .npy file with one sample or a batch of '
    'samples, raw as the data set gives them',
  )
  parser.add_argument(
    '--time_steps',
    type=positive_int,
    help='timesteps to run instead of those of training',
  )
  parser.add_argument(
    '--sensor',
    default='',
    help='the camera of recordings or the HEIGHTxWIDTH of its sensor, where '
    'the files do not say it',
  )
  parser.add_argument(
    '--json',
    action='store_true',
    help='print one JSON object per sample, with the probability of each class',
  )
  parser.set_defaults(command_function=_predict)


def _predict(arguments):
  if arguments.config:
    from_file(arguments.config)
  from mlf_jax.interop.sample_files import read_samples
  from mlf_jax.interop.trained import load

  net = load(arguments.workdir, arguments.checkpoint, arguments.time_steps)
  for file in arguments.files:
    samples = read_samples(file, net, arguments.sensor)
    names, probabilities = net.predict(samples)
    for i, (name, each) in enumerate(zip(names, probabilities, strict=True)):
      place = file if len(names) == 1 else f'{file}[{i}]'
      if arguments.json:
        of_class = zip(net.class_names, each.round(6).tolist(), strict=True)
        line = {'file': file, 'sample': i, 'class': name}
        print(json.dumps(line | {'probability': dict(of_class)}))
      else:
        print(f'{place}  {name}  {each.max():.3f}')
