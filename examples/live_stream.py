"""Classifies a recording while it arrives: `python examples/live_stream.py`.

Takes a run of `configs/moving_digits.py` and one recording of its test set. It
feeds every window to the network when the window closes, and prints the
decision so far. At the end it compares the logits with those for the whole
recording.
"""

import argparse
import pathlib
import sys
import time

import jax
import numpy as np

from mlf_jax import UserError, stream, training
from mlf_jax.data.events import moving_digits, to_frames
from mlf_jax.training.config import is_float64
from mlf_jax.training.configured_data import load_dataset, normalizer

_HOW_TO_TRAIN = 'python train.py --config=moving_digits --workdir=runs/moving'


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
  restored = training.restore(arguments.workdir)
  settings = restored.config.data
  if (settings.name, settings.get('binning')) != ('moving_digits', 'window'):
    raise UserError(
      f'{arguments.workdir} is no run on windows of moving_digits; this makes '
      f'one: {_HOW_TO_TRAIN}'
    )
  with jax.enable_x64(is_float64(restored.config)):
    classify(restored, arguments.sample)


def classify(restored, sample):
  """Feeds one recording to the best network of a run, window by window."""
  config, model, step, trained = restored
  variables, dataset = trained.eval_variables, load_dataset(config)
  normalize, whole = normalizer(config, dataset), dataset.test.images
  if not 0 <= sample < len(whole):
    raise UserError(
      f'--sample must be 0 to {len(whole) - 1}, the test recordings, got '
      f'{sample}'
    )
  recordings, labels = moving_digits.recordings('test')
  recording = recordings[sample]
  print(
    f'network after step {step}; test recording {sample}, a {labels[sample]}, '
    f'{len(recording):,} events'
  )

  def feed(state, frames):
    frames = normalize(frames[np.newaxis])
    state, logits = stream.feed(model, variables, state, frames)
    return state, np.asarray(jax.nn.softmax(logits[0])), logits

  start = stream.init(model, variables, whole.shape[2:])
  # Compiles before anything is timed; the state is not kept.
  feed(start, np.zeros_like(whole[0, :1]))

  window_us = round(config.data.window_ms * 1000)
  state = start
  for closes in range(window_us, (len(whole[0]) + 1) * window_us, window_us):
    # A camera has delivered these events by now, and the work begins.
    first = recording.t[0]
    window = recording.between(first + closes - window_us, first + closes)
    began = time.perf_counter()
    frames = to_frames(
      window,
      1,
      window_us,
      downsample=config.data.downsample,
      mirrored=config.data.mirrored,
      crop=config.data.crop,
      origin=first + closes - window_us,
    )
    state, probabilities, logits = feed(state, frames)
    latency_ms = 1000 * (time.perf_counter() - began)
    decision = probabilities.argmax()
    print(
      f'{closes / 1000:6.1f} ms  {len(window):5} events  '
      f'decision {decision}  probability {probabilities[decision]:.3f}  '
      f'latency {latency_ms:.2f} ms'
    )

  inputs = normalize(whole[sample : sample + 1])
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
