"""Memory of a training step, estimated before the step is compiled.

A step takes bytes that do not depend on the batch (weights, optimiser, their
gradients) and bytes per sample. Both follow from two smaller batches, which are
compiled and never run.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np
import optax

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data
from mlf_jax.training.optimizer import make_optimizer
from mlf_jax.training.sharding import AXIS, DataParallel
from mlf_jax.training.state import drawn_state
from mlf_jax.training.step import train_step

# `largest_batch` looks no further than this, more than any device holds, and
# makes no more estimates than lead there from the smallest batch.
_LARGEST_BATCH = 2**20
_MOST_ESTIMATES = 7


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
  """Memory of a training step on one device, in bytes.

  Attributes:
    fixed: bytes whatever the batch.
    per_sample: bytes for each sample of this device's part of the batch.
  """

  fixed: float
  per_sample: float

  def bytes(self, batch_size: int) -> int:
    """Peak with that many samples on the device."""
    return round(self.fixed + batch_size * self.per_sample)

  def largest_batch(self, limit: int) -> int:
    """Samples whose step takes at most `limit` bytes; 0 if not even one."""
    return max(0, int((limit - self.fixed) // self.per_sample))


def compile_step(
  config: ml_collections.ConfigDict,
  batch_size: int,
  devices: Sequence[jax.Device] | None = None,
  compiler_options: dict[str, int] | None = None,
) -> jax.stages.Compiled:
  """Compiles the training step of a run, without its data and parameters.

  Args:
    config: the configuration.
    batch_size: samples on each device.
    devices: devices that it is compiled for; one local device by default.
    compiler_options: options beside those of a run.

  Returns:
    The compiled step, which takes over the buffers of its state.
  """
  shape, num_classes = configured_data.sample_spec(config)
  # Two samples have the shapes and dtypes of the data.
  images, labels = np.zeros((2, *shape), np.uint8), np.zeros(2, np.int32)
  samples = data.from_arrays(
    images, labels, images, labels, num_classes=num_classes
  )
  batch = data.train_batch(
    samples.train, 2, 0, 0, with_partners=data.needs_partners(config.augment)
  )
  with jax.enable_x64(config_lib.is_float64(config)):
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
    parallel = DataParallel(config.parallel, devices or jax.local_devices()[:1])
    model = config_lib.build_model(config, num_classes, AXIS)
    state = jax.eval_shape(
      lambda key: drawn_state(
        model, optimizer, key, shape, config.ema_decay > 0
      ),
      jax.random.key(0),
    )

    lead = (parallel.num_devices * batch_size,)
    if config.parallel == 'pmap':
      lead = (parallel.num_devices, batch_size)
    batch = {
      name: jax.ShapeDtypeStruct(
        (*lead, *array.shape[1:]), array.dtype, sharding=parallel.divided
      )
      for name, array in batch.items()
    }
    step = functools.partial(
      train_step,
      model=model,
      optimizer=optimizer,
      config=config,
      normalize=configured_data.normalizer(config, samples),
    )
    lowered = parallel.parallelize(step, donate=True).lower(state, batch)
    return lowered.compile(compiler_options)


def measure(config: ml_collections.ConfigDict, batch_size: int) -> int:
  """Bytes that the compiled training step takes, by `memory_analysis`.

  Arguments, results without a buffer of an argument, and temporaries, on one
  device for a batch of `batch_size` samples; nothing is executed.
  """
  taken = compile_step(config, batch_size).memory_analysis()
  return (
    taken.argument_size_in_bytes
    + taken.output_size_in_bytes
    - taken.alias_size_in_bytes
    + taken.temp_size_in_bytes
  )


def estimate(
  config: ml_collections.ConfigDict, batch_size: int
) -> MemoryEstimate:
  """Estimates the memory near a batch size by compiling smaller batches.

  Args:
    config: the configuration.
    batch_size: samples on one device; the larger of the two batches that are
      compiled is half as large.

  Raises:
    UserError: fewer than 4 samples, too few to divide.
  """
  if batch_size < 4:
    raise UserError(
      'a prediction is made from smaller batches and needs at least 4 samples '
      f'per device, got {batch_size}; config.batch_size is for all devices '
      'together'
    )
  small, large = batch_size // 4, batch_size // 2
  small_bytes, large_bytes = (measure(config, size) for size in (small, large))
  per_sample = (large_bytes - small_bytes) / (large - small)
  return MemoryEstimate(large_bytes - large * per_sample, per_sample)


def largest_batch(
  config: ml_collections.ConfigDict,
  limit: int,
  size: int,
  estimated: MemoryEstimate,
  estimate: Callable[..., MemoryEstimate] = estimate,
) -> int:
  """Estimates the largest batch of one device that fits.

  Args:
    config: the configuration.
    limit: bytes of the device.
    size: samples of a batch, at least 4.
    estimated: `estimate` for that batch.
    estimate: estimates the memory near another batch size.

  Returns:
    Samples; 0 if fewer than 4 fit.
  """
  for _ in range(_MOST_ESTIMATES):
    fits = estimated.largest_batch(limit)
    if fits < 4:
      return 0
    # An estimate holds near its batch size: continue from where it points.
    nearer = min(fits, 8 * size, _LARGEST_BATCH)
    if size // 2 <= fits <= 2 * size or nearer == size:
      break
    size, estimated = nearer, estimate(config, nearer)
  return fits
