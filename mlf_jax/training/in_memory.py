"""Training on arrays in memory, on one device: no directory, no checkpoints.

Seed, learning rate, weight decay and the mean and standard deviation of the
samples are inputs of the compiled programs: calls that differ in nothing else
share them, such as those of a cross-validation.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, Int, Real

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import sharding
from mlf_jax.training.optimizer import make_optimizer, make_schedule
from mlf_jax.training.state import TrainState, drawing_options, drawn_state
from mlf_jax.training.step import train_step

# Sections and fields of a configuration that the compiled programs depend on,
# besides the shapes of their inputs.
PROGRAM_FIELDS = (
  'augment',
  'ema_decay',
  'label_smoothing',
  'loss',
  'max_skipped_steps',
  'memory',
  'model',
  'optimizer',
  'random_time_steps',
  'unit',
)
# As in a run: the host runs ahead of the device by this many steps.
_STEPS_IN_FLIGHT = 8


class Scaling(NamedTuple):
  """Mean and standard deviation of each channel, shaped to broadcast."""

  mean: Float[np.ndarray, '*ones channel']
  std: Float[np.ndarray, '*ones channel']

  def __call__(self, images, dtype):
    """Returns `(images - mean) / std` in a dtype."""
    return ((images - self.mean) / self.std).astype(dtype)


class Samples(NamedTuple):
  """Training samples.

  Attributes:
    images: images [n, h, w, c] or frames [n, t, h, w, c], uint8 or float32.
    labels: class of each sample, from 0 on.
    weights: factor of each sample's loss.
  """

  images: Real[np.ndarray, 'n *sample']
  labels: Int[np.ndarray, 'n']
  weights: Float[np.ndarray, 'n']


class Programs(NamedTuple):
  """A network and its jitted functions.

  Attributes:
    model: the network.
    init: maps a seed to the first state.
    train_step: maps (state, batch, scaling, numbers) to the next state and the
      metrics of `step.train_step`; `numbers` has `seed`, `learning_rate` and
      `weight_decay`. The buffers of the state are donated.
    logits: maps (variables, images, scaling) to logits [batch, classes].
  """

  model: nn.Module
  init: Callable[[Any], TrainState]
  train_step: Callable[..., tuple[TrainState, dict]]
  logits: Callable[..., jax.Array]


def programs(
  config: ml_collections.ConfigDict,
  sample_shape: tuple[int, ...],
  num_classes: int,
) -> Programs:
  """Programs of a configuration; equal ones are compiled once per process.

  Args:
    config: a configuration that is valid.
    sample_shape: (h, w, c), or (t, h, w, c) of frames.
    num_classes: number of classes.

  Raises:
    UserError: an attribute of the network or of its unit is wrong.
  """
  fixed = {name: config[name] for name in PROGRAM_FIELDS}
  fixed = ml_collections.ConfigDict(fixed).to_dict()
  del fixed['optimizer']['learning_rate'], fixed['optimizer']['weight_decay']
  fixed = ml_collections.FrozenConfigDict(fixed)
  return _programs(fixed, tuple(sample_shape), num_classes)


@functools.lru_cache(maxsize=16)
def _programs(fixed, sample_shape, num_classes) -> Programs:
  model = config_lib.build_model(fixed, num_classes)
  dtype = 'float64' if config_lib.is_float64(fixed) else 'float32'

  def completed(seed, learning_rate, weight_decay):
    config = fixed.to_dict()
    config['seed'] = seed
    config['optimizer']['weight_decay'] = weight_decay
    config = ml_collections.ConfigDict(config)
    return config, make_optimizer(config, lambda updates: learning_rate)

  def init(seed):
    _, optimizer = completed(seed, np.float32(0), 0.0)
    key = jax.random.key(seed)
    return drawn_state(model, optimizer, key, sample_shape, fixed.ema_decay > 0)

  def step(state, batch, scaling, numbers):
    config, optimizer = completed(**numbers)
    return train_step(
      state,
      batch,
      model=model,
      optimizer=optimizer,
      config=config,
      normalize=lambda images: scaling(images, dtype),
    )

  def logits(variables, images, scaling):
    return model.apply(variables, scaling(images, dtype))

  platform = jax.default_backend()
  options = sharding.compiler_options(platform)
  return Programs(
    model,
    jax.jit(init, compiler_options=drawing_options(platform)),
    jax.jit(step, donate_argnums=0, compiler_options=options),
    jax.jit(logits, compiler_options=options),
  )


def train_epochs(
  config: ml_collections.ConfigDict,
  programs: Programs,
  state: TrainState,
  samples: Samples,
  scaling: Scaling,
) -> Iterator[tuple[TrainState, dict[str, float]]]:
  """Trains `config.num_epochs` epochs of full batches, as a run does.

  Args:
    config: the configuration.
    programs: its programs.
    state: the first state.
    samples: at least `config.batch_size` samples.
    scaling: how they are normalised.

  Yields:
    After each epoch the state, whose buffers the next epoch reuses, and the
    mean `loss` and `accuracy` of its steps.

  Raises:
    UserError: a batch is larger than the training set, or as many steps in a
      row as an epoch or `config.max_skipped_steps` has had a loss, gradient or
      update that is not finite.
  """
  # The labels of a batch are then the numbers of its samples.
  split = data.Split(samples.images, np.arange(len(samples.labels)))
  per_epoch = data.steps_per_epoch(split, config.batch_size)
  schedule = make_schedule(config, per_epoch, per_epoch * config.num_epochs)
  scaling = jax.device_put(scaling)
  numbers = {
    'seed': jax.device_put(np.int32(config.seed)),
    'weight_decay': jax.device_put(np.float32(config.optimizer.weight_decay)),
  }
  with_partners = data.needs_partners(config.augment)

  for epoch in range(config.num_epochs):
    metrics = []
    for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
      batch = data.train_batch(
        split, config.batch_size, config.seed, step, with_partners
      )
      batch['weight'] = samples.weights[batch['label']]
      for name in ('label', 'partner_label') if with_partners else ('label',):
        batch[name] = samples.labels[batch[name]]
      rate = schedule(np.int32(step // config.optimizer.accumulate_steps))
      numbers['learning_rate'] = jnp.asarray(rate, jnp.float32)
      state, of_step = programs.train_step(state, batch, scaling, numbers)
      metrics.append(of_step)
      jax.block_until_ready(metrics[-_STEPS_IN_FLIGHT:][0])
    metrics = jax.device_get(metrics)
    skipped = int(metrics[-1]['skipped_in_row'])
    if skipped >= min(config.max_skipped_steps, per_epoch):
      raise UserError(
        f'{skipped} steps in a row had a loss, gradient or update that is not '
        f'finite, up to epoch {epoch + 1}; a lower learning_rate may help'
      )
    yield (
      state,
      {
        name: float(np.mean([of_step[name] for of_step in metrics]))
        for name in ('loss', 'accuracy')
      },
    )


def batch_logits(
  programs: Programs,
  variables: dict[str, Any],
  images: Real[np.ndarray, 'n *sample'],
  scaling: Scaling,
  batch_size: int,
) -> Float[np.ndarray, 'n classes']:
  """Logits of any number of samples.

  All batches have one size: the result of a sample does not depend on how many
  others there are, and the program is compiled once.

  Args:
    programs: programs of the network.
    variables: `params` and `batch_stats`.
    images: the samples.
    scaling: how they are normalised.
    batch_size: samples per batch.
  """
  split = data.Split(images, np.zeros(len(images), np.int32))
  variables = jax.device_put(variables)
  logits = [
    programs.logits(variables, batch['image'], scaling)
    for batch in data.eval_batches(split, batch_size)
  ]
  return np.concatenate(jax.device_get(logits))[: len(images)]
