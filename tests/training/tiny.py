"""A configuration and data small enough to train in a test."""

import functools
import types
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlf_jax import data, layers
from mlf_jax.training import (
  NETWORKS,
  NetworkEntry,
  configured_data,
  default_config,
)
from mlf_jax.training import config as config_lib
from mlf_jax.training import state as state_lib
from mlf_jax.training import step as step_lib
from mlf_jax.training.losses import LOSSES
from mlf_jax.training.optimizer import make_optimizer, make_schedule
from tests import quick


class SmallNetwork(nn.Module):
  """A network that compiles at once, for tests of what surrounds it."""

  num_classes: int
  time_steps: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x, train=False):
    frames = x.shape[1] if x.ndim == 5 else 1
    x = nn.Dense(8)(x.reshape(len(x), frames, -1))
    x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x)
    x = layers.TimestepDropout(0.1, 1, self.axis_name)(x, not train)
    readout, u, logits = nn.Dense(self.num_classes), 0.0, 0.0
    for t in range(self.time_steps):
      u = 0.5 * u + x[:, t % frames]
      logits += readout(jnp.tanh(u)) / self.time_steps
    return logits


def _build_small(*, num_classes, time_steps, axis_name, **unused):
  return SmallNetwork(num_classes, time_steps, axis_name)


NETWORKS['small'] = NetworkEntry(_build_small)


def config(data_name='digits', model='spiking_resnet', unit='mlf', **changes):
  """The tiny configuration of a data set; `a__b=c` sets `config.a.b`."""
  c = default_config(model, data_name, unit)
  c.batch_size = 64
  c.num_steps = 6
  c.log_every = 2
  c.eval_every_epochs = 0.136
  c.eval_batch_size = 64
  c.augment.flip = False
  if 'crop_padding' in c.augment:
    c.augment.crop_padding = int(model != 'small')
  if model == 'spiking_resnet':
    c.model.depth = 8
    c.model.widths = (2, 3, 4)
  c.model.time_steps = 2
  if unit == 'mlf':
    c.unit.thresholds = (0.6, 1.6)
  for name, value in changes.items():
    *path, leaf = name.split('__')
    node = c
    for part in path:
      node = node[part]
    node[leaf] = value
  return c


def samples(shape, n=48, num_classes=4, seed=0):
  """Random uint8 samples of the given shape, their class in their mean."""
  generator = np.random.default_rng(seed)
  labels = np.arange(n, dtype=np.int32) % num_classes
  images = generator.integers(0, 60, (n, *shape))
  images += 60 * labels.reshape((-1,) + (1,) * len(shape))
  return images.astype(np.uint8), labels


def dataset(shape, n=48, num_classes=4):
  """A data set of such samples."""
  return data.from_arrays(
    *samples(shape, n, num_classes),
    *samples(shape, n, num_classes, seed=1),
    num_classes=num_classes,
    scale=255.0,
    mean=(0.5,) * shape[-1],
    std=(0.25,) * shape[-1],
  )


class Built(NamedTuple):
  """The parts of a training step, without a run around them."""

  dataset: data.Dataset
  model: nn.Module
  state: state_lib.TrainState
  train_step: Callable
  eval_step: Callable


small = functools.partial(config, model='small')


@functools.cache
def drawn_variables(model, shape):
  """Variables of a network, which many configurations share."""
  return quick.variables(model, jnp.zeros((1, *shape)))


def built(config, shape, axis_name=None, **replacements):
  """The steps of a configuration for samples of a shape, with drawn weights.

  Args:
    config: the configuration.
    shape: shape of a sample.
    axis_name: axis over which the batch is divided.
    **replacements: other `optimizer` or `normalize` of the training step.
  """
  samples = dataset(shape)
  model = config_lib.build_model(config, samples.num_classes, axis_name)
  parts = {
    'optimizer': make_optimizer(config, make_schedule(config, 3, 6)),
    'normalize': configured_data.normalizer(config, samples),
    **replacements,
  }
  # Drawing the weights with JAX takes longer than compiling the step.
  variables = drawn_variables(model.clone(axis_name=None), shape)
  drawn = types.SimpleNamespace(init=lambda key, x: variables)
  state = state_lib.init_state(
    drawn, parts['optimizer'], config.seed, shape, config.ema_decay > 0
  )
  return Built(
    samples,
    model,
    state,
    functools.partial(step_lib.train_step, model=model, config=config, **parts),
    functools.partial(
      step_lib.eval_step,
      model=model,
      loss=LOSSES[config.loss],
      normalize=parts['normalize'],
    ),
  )
