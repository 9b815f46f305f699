"""Classifies a recording while it arrives: `python examples/live_stream.py`.

Takes a run of `configs/moving_digits.py` and one recording of its test set, and
feeds every window to the network when the window closes. At the end it compares
the logits with those for the whole recording.
"""

import argparse
import dataclasses
import sys
import time

import numpy as np

import mlf_jax
from mlf_jax.data.events import moving_digits

_HOW_TO_TRAIN = 'python train.py --config=moving_digits --workdir=runs/moving'


def classify(net, recording):
  """Feeds a recording to a network, window by window."""
  window = dataclasses.replace(net.frames, time_steps=1)
  first, length = recording.t[0], window.window_us
  # Compiles before anything is timed.
  net.stream().feed(np.zeros((1, *net.preprocessing.sample_shape[1:])))
  stream = net.stream()
  for start in range(0, net.frames.time_steps * length, length):
    # A camera has delivered these events by now, and the work begins.
    events = recording.between(first + start, first + start + length)
    began = time.perf_counter()
    logits = stream.feed(window.frames(events, origin=first + start))
    (decision,), (probabilities,) = net.decide(logits)
    latency_ms = 1000 * (time.perf_counter() - began)
    print(
      f'{(start + length) / 1000:6.1f} ms  {len(events):5} events  '
      f'decision {decision}  probability {probabilities.max():.3f}  '
      f'latency {latency_ms:.2f} ms'
    )
  whole = net(net.frames.frames(recording)[np.newaxis])
  difference = abs(logits - whole).max()
  verdict = f'logits off by {difference:.2g}'
  if difference == 0:
    verdict = 'the same logits, bit for bit'
  print(f'the network on the whole recording: {verdict}')


def main():
  """Finds the run and the recording that the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--workdir', required=True, help=f'a run, as left by {_HOW_TO_TRAIN}'
  )
  parser.add_argument(
    '--sample', type=int, default=0, help='number of the test recording'
  )
  arguments = parser.parse_args()
  net = mlf_jax.load(arguments.workdir)
  if net.config.data.name != 'moving_digits' or not net.frames.window_us:
    raise mlf_jax.UserError(
      f'{arguments.workdir} is no run on windows of moving_digits; this makes '
      f'one: {_HOW_TO_TRAIN}'
    )
  recordings, labels = moving_digits.recordings('test')
  if not 0 <= arguments.sample < len(recordings):
    raise mlf_jax.UserError(
      f'--sample must be 0 to {len(recordings) - 1}, the test recordings, got '
      f'{arguments.sample}'
    )
  print(f'network after step {net.step}; a {labels[arguments.sample]}')
  classify(net, recordings[arguments.sample])


if __name__ == '__main__':
  try:
    main()
  except mlf_jax.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
