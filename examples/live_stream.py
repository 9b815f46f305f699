"""Classifies a recording while it arrives: `python examples/live_stream.py`.

Takes a run of `configs/moving_digits.py` and one recording of its test set.
Every window is fed to the network when it closes, and the decision so far is
printed. The last one is compared with the network's on the whole recording.
"""

import argparse
import pathlib
import sys
import time

import jax
import numpy as np

from mlf_jax import UserError, stream
from mlf_jax.data.events import moving_digits, to_frames
from mlf_jax.training import config as config_lib
from mlf_jax.training import evaluation
from mlf_jax.training import run as run_lib
from mlf_jax.training import workdir as workdir_lib

_HOW_TO_TRAIN = (
  'python train.py --config=configs/moving_digits.py '
  '--workdir=runs/moving_digits'
)


def main() -> None:
  """Streams the recording that the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--workdir', type=pathlib.Path, help=f'a run, as left by {_HOW_TO_TRAIN}'
  )
  parser.add_argument(
    '--sample', type=int, default=0, help='number of the test recording'
  )
  arguments = parser.parse_args()
  if arguments.workdir is None:
    raise UserError(f'--workdir is needed; this makes a run: {_HOW_TO_TRAIN}')
  workdir = arguments.workdir.expanduser()
  stored = workdir_lib.read_json(workdir / 'config.json')
  config = config_lib.from_json(stored)
  if (config.data.name, config.data.get('binning')) != (
    'moving_digits',
    'window',
  ):
    raise UserError(
      f'{workdir} is no run on windows of moving_digits; this makes '
      f'one: {_HOW_TO_TRAIN}'
    )
  with jax.enable_x64(config.model.dtype == 'float64'):
    classify(workdir, config, arguments.sample)


def classify(workdir, config, sample):
  """Feeds one recording to the best network of a run, window by window."""
  run = run_lib.load(config)
  step, trained = evaluation.restore(workdir, run)
  model, variables = run.steps.model, trained.eval_variables
  whole = run.test_set.images
  if not 0 <= sample < len(whole):
    raise UserError(
      f'--sample must be 0 to {len(whole) - 1}, the test recordings, got '
      f'{sample}'
    )
  recordings, labels = moving_digits.recordings('test')
  recording = recordings[sample]
  print(
    f'{workdir}, step {step}: test recording {sample}, a {labels[sample]}, '
    f'{len(recording):,} events'
  )

  def feed(state, frames):
    frames = run.steps.normalize(frames[np.newaxis])
    state, logits = stream.feed(model, variables, state, frames)
    return state, np.asarray(jax.nn.softmax(logits[0])), logits

  start = stream.init(model, variables, whole.shape[2:])
  # Compiles, outside the clock; the state is not kept.
  feed(start, np.zeros_like(whole[0, :1]))

  window_us = round(config.data.window_ms * 1000)
  state = start
  for closes in range(window_us, (len(whole[0]) + 1) * window_us, window_us):
    # A camera would deliver these events up to now, and the work begins.
    first = recording.t[0]
    window = recording.between(first + closes - window_us, first + closes)
    began = time.perf_counter()
    frames = to_frames(
      window, 1, binning='count', downsample=config.data.downsample
    )
    state, probabilities, logits = feed(state, frames)
    latency_ms = 1000 * (time.perf_counter() - began)
    decision = probabilities.argmax()
    print(
      f'{closes / 1000:6.1f} ms  {len(window):5} events  '
      f'decision {decision}  probability {probabilities[decision]:.3f}  '
      f'latency {latency_ms:.2f} ms'
    )

  inputs = run.steps.normalize(whole[sample : sample + 1])
  offline = jax.jit(model.apply)(variables, inputs)
  if np.array_equal(logits, offline):
    print('the network on the whole recording: the same logits, bit for bit')
  else:
    difference = float(abs(logits - offline).max())
    print(f'the network on the whole recording: logits off by {difference:.2g}')


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
