"""Networks, training steps and timing that the benchmarks share."""

import argparse
import dataclasses
import functools
import os
import pathlib
import platform
import runpy
import statistics
import time

import jax
import jax.numpy as jnp
import ml_collections
import optax

from mlf_jax import layers, models
from mlf_jax.training.sharding import compiler_options

# The paper's networks: constructor and shape of the batch.
NETWORKS = {
  'CIFAR-10 DS-20 T=4': (models.ds_resnet20_cifar10, (8, 32, 32, 3)),
  'CIFAR10-DVS DS-14 T=10': (
    models.ds_resnet14_cifar10_dvs,
    (4, 10, 42, 42, 2),
  ),
  'Gesture DS-20 T=40': (models.ds_resnet20_dvs_gesture, (4, 40, 32, 32, 2)),
}
# Batches that fill a GPU, in the same order.
GPU_BATCHES = dict(zip(NETWORKS, (128, 64, 32), strict=True))
# Files under `configs/` that train them.
CONFIGURATIONS = dict(
  zip(NETWORKS, ('cifar10', 'cifar10_dvs', 'dvs_gesture'), strict=True)
)

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def network(name: str, batch: int | None = None):
  """Returns constructor and shape of a batch, `batch` samples if given.

  Otherwise as many as the table says, or as fill a GPU if there is one.
  """
  constructor, (samples, *sample) = NETWORKS[name]
  if jax.default_backend() == 'gpu':
    samples = GPU_BATCHES.get(name, samples)
  return constructor, (batch or samples, *sample)


def configuration(name: str, *variant: str) -> ml_collections.ConfigDict:
  """The configuration in a file under `configs/`, or a variant of it."""
  path = REPOSITORY / 'configs' / f'{name}.py'
  return runpy.run_path(str(path))['get_config'](*variant)


def machine() -> str:
  """Python, JAX and processor that figures are measured on, in one line."""
  kind = jax.devices()[0].device_kind
  return (
    f'Python {platform.python_version()}, JAX {jax.__version__}, '
    f'{_processor() if kind == "cpu" else kind}, {os.cpu_count()} cores'
  )


def _processor():
  """Name of the processor and of its widest vectors, from /proc/cpuinfo."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    text = ''
  lines = (line.partition(':') for line in text.splitlines())
  fields = {key.strip(): value.strip() for key, _, value in lines}
  name = fields.get('model name', platform.machine())
  flags = fields.get('flags', '').split()
  vectors = {'avx512f': 'AVX-512', 'avx2': 'AVX2'}
  widest = [vectors[flag] for flag in vectors if flag in flags][:1]
  return ' with '.join([name, *widest])


def options() -> dict[str, str]:
  """Compiler options with which training runs."""
  return compiler_options(jax.devices()[0].platform)


@dataclasses.dataclass(frozen=True)
class PlainMLF(layers.MLF):
  """MLF unit that JAX differentiates through a scan over single timesteps."""

  run = layers.SpikingUnit.run


class Case:
  """A network with its training step and its inference, compiled or not."""

  def __init__(self, constructor, shape, **attributes):
    """Builds the network with such attributes, and a batch for it."""
    self._model = constructor(**attributes)
    x = jax.random.uniform(jax.random.key(0), shape)
    # Images are real, frames count events.
    self.x = x if len(shape) == 4 else jnp.floor(4 * x * x)
    self.labels = jnp.arange(shape[0]) % self._model.num_classes
    self._optimizer = optax.sgd(0.1, momentum=0.9)

    def init(key):
      variables = self._model.init(key, self.x[:1])
      params = variables['params']
      return params, variables['batch_stats'], self._optimizer.init(params)

    self.init = functools.partial(jax.jit(init), jax.random.key(1))

  def train(self, state, x, labels):
    """Training step: forward, backward, update."""
    params, batch_stats, opt_state = state

    def loss_fn(params):
      logits, new = self._model.apply(
        {'params': params, 'batch_stats': batch_stats},
        x,
        train=True,
        mutable=['batch_stats'],
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), new['batch_stats']

    (loss, batch_stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
      params
    )
    updates, opt_state = self._optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, batch_stats, opt_state), loss

  def infer(self, state, x):
    """Logits of a batch."""
    params, batch_stats, _ = state
    return self._model.apply({'params': params, 'batch_stats': batch_stats}, x)

  def compile_train(self, **compiler_options):
    """Compiles the training step, which donates its state."""
    state = jax.eval_shape(self.init)
    lowered = jax.jit(self.train, donate_argnums=0).lower(
      state, self.x, self.labels
    )
    return lowered.compile(compiler_options=compiler_options)

  def compile_infer(self, **compiler_options):
    """Compiles the inference."""
    state = jax.eval_shape(self.init)
    lowered = jax.jit(self.infer).lower(state, self.x)
    return lowered.compile(compiler_options=compiler_options)

  def trainer(self, step):
    """Returns a function that trains from step to step and gives the loss."""
    state = self.init()

    def train():
      nonlocal state
      state, loss = step(state, self.x, self.labels)
      return loss

    return train

  def evaluator(self, infer):
    """Returns a function that gives the logits of the batch."""
    state = self.init()
    return lambda: infer(state, self.x)


def temporaries(compiled) -> float:
  """Memory in MB (10^6 bytes) of a compiled function besides its arguments."""
  return compiled.memory_analysis().temp_size_in_bytes / 1e6


def race(runners, repetitions, warm_up=2):
  """Times functions in turns, so that a slow moment hits all of them.

  Args:
    runners: names to functions without arguments.
    repetitions: turns that are timed.
    warm_up: turns before those.

  Returns:
    Names to the seconds of each timed turn.
  """
  seconds = {name: [] for name in runners}
  for turn in range(warm_up + repetitions):
    for name, runner in runners.items():
      began = time.perf_counter()
      jax.block_until_ready(runner())
      if turn >= warm_up:
        seconds[name].append(time.perf_counter() - began)
  return seconds


def spread(values, how='.2f') -> str:
  """Formats median and quartiles, each number in the format `how`."""
  low, _, high = statistics.quantiles(values, n=4)
  return f'{statistics.median(values):{how}} ({low:{how}}-{high:{how}})'


def ratio(seconds, base) -> str:
  """Formats median and quartiles of the ratios turn by turn."""
  return spread([s / b for s, b in zip(seconds, base, strict=True)])


def at_least(least: int):
  """Returns an argparse type for whole numbers not below `least`."""

  def whole_number(text):
    if not (text.isascii() and text.isdigit() and int(text) >= least):
      raise argparse.ArgumentTypeError(
        f'must be a whole number of at least {least}, got {text!r}'
      )
    return int(text)

  return whole_number
