"""Time of looking inside during training: `python benchmarks/activity.py`.

Prints, for the network of the digits and for the paper's CIFAR-10 network at a
small batch, the time of one look inside in units of a training step, measured
in turns in one process (median and quartiles), the share of the training time
that this is at the default `config.log_activity_every`, and the time to compile
the look, which happens once, in training steps too.
"""

import argparse
import functools
import statistics
import time

import cases
import jax
import numpy as np

from mlf_jax import data
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data
from mlf_jax.training.activity_pass import activity_step
from mlf_jax.training.optimizer import make_optimizer, make_schedule
from mlf_jax.training.sharding import AXIS, DataParallel
from mlf_jax.training.state import init_state
from mlf_jax.training.step import train_step

# Configurations and samples per step.
CONFIGURATIONS = {'digits': 64, 'cifar10': 8}


def main():
  """Measures one configuration after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=21)
  parser.add_argument(
    '--configs', nargs='+', choices=CONFIGURATIONS, default=[*CONFIGURATIONS]
  )
  arguments = parser.parse_args()
  print(cases.machine(), flush=True)
  for name in arguments.configs:
    _measure(name, CONFIGURATIONS[name], arguments.repetitions)
  return 0


def _measure(name, batch_size, repetitions):
  config = cases.configuration(name)
  config.batch_size = batch_size
  parallel = DataParallel(config.parallel)
  shape, num_classes = configured_data.sample_spec(config)
  model = config_lib.build_model(config, num_classes, AXIS)
  optimizer = make_optimizer(config, make_schedule(config, 100, 1000))
  state = init_state(model, optimizer, 0, shape, ema=False)
  state = jax.device_put(state, parallel.replicated)
  batch = parallel.shard_batch(_random_batch(batch_size, shape, num_classes))
  parts = {
    'model': model,
    'config': config,
    'normalize': lambda images: images.astype('float32') / 128 - 1,
  }
  step = functools.partial(train_step, optimizer=optimizer, **parts)
  look = functools.partial(activity_step, **parts)
  # The state is kept, so that both can run again and again.
  step = parallel.parallelize(step).lower(state, batch).compile()
  began = time.perf_counter()
  look = parallel.parallelize(look).lower(state, batch).compile()
  compile_seconds = time.perf_counter() - began
  seconds = cases.race(
    {'step': lambda: step(state, batch), 'look': lambda: look(state, batch)},
    repetitions,
  )
  every = config.log_activity_every
  steps = statistics.median(
    a / b for a, b in zip(seconds['look'], seconds['step'], strict=True)
  )
  print(
    f'{name}, batch {batch_size}: a look takes '
    f'{cases.ratio(seconds["look"], seconds["step"])} training steps, every '
    f'{every:,} steps {steps / (every + steps):.2%} of the training time; its '
    'compilation takes as long as '
    f'{compile_seconds / statistics.median(seconds["step"]):.0f} steps, once',
    flush=True,
  )


def _random_batch(batch_size, shape, num_classes):
  images = np.random.default_rng(0).integers(
    0, 256, (batch_size, *shape), np.uint8
  )
  arrays = images, np.arange(batch_size) % num_classes
  split = data.from_arrays(*arrays, *arrays, num_classes=num_classes).train
  return data.train_batch(split, batch_size, 0, 0)


if __name__ == '__main__':
  raise SystemExit(main())
