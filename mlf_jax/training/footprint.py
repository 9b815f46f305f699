"""What a training step will take in memory, before it is compiled.

A step takes bytes that do not depend on the batch (weights, optimiser, their
gradients) and bytes for each sample. Two small batches are compiled, which
takes no memory to speak of, and tell both.
"""

import dataclasses

import jax
import ml_collections
import numpy as np

from mlf_jax import data
from mlf_jax.errors import UserError
from mlf_jax.training import augmentation
from mlf_jax.training import run as run_lib
from mlf_jax.training import state as state_lib
from mlf_jax.training.parallel import DataParallel

# The search for the largest batch ends at one larger than any device holds, and
# after as many predictions as lead there from the smallest.
_LARGEST_BATCH = 2**20
_MOST_PREDICTIONS = 7


@dataclasses.dataclass(frozen=True)
class Footprint:
  """Memory of a training step on one device, in bytes.

  Attributes:
    fixed: whatever the batch.
    per_sample: for each sample of this device's part of the batch.
  """

  fixed: float
  per_sample: float

  def bytes(self, batch_size: int) -> int:
    """Peak for a part of the batch of that size."""
    return round(self.fixed + batch_size * self.per_sample)

  def largest_batch(self, limit: int) -> int:
    """Samples whose step takes at most `limit` bytes; 0 if not even one."""
    return max(0, int((limit - self.fixed) // self.per_sample))


def compile_step(
  config: ml_collections.ConfigDict, batch_size: int
) -> jax.stages.Compiled:
  """The training step of a run, without its data and parameters.

  Args:
    config: the configuration.
    batch_size: samples on the one device it is compiled for.

  Returns:
    The compiled step, which takes the buffers of its state.
  """
  shape, num_classes = data.sample_shape(
    config.data.name,
    run_lib.frames_of(config)
    if config.data.name in data.event_names()
    else None,
  )
  stand_in = data.Dataset(
    name=config.data.name,
    split='train',
    split_name='none',
    images=np.broadcast_to(np.uint8(0), (max(batch_size, 2), *shape)),
    labels=np.zeros(max(batch_size, 2), np.int32),
    num_classes=num_classes,
    scale=1.0,
    mean=(0.0,) * shape[-1],
    std=(1.0,) * shape[-1],
  )
  config = config.copy_and_resolve_references()
  config.batch_size = batch_size
  with jax.enable_x64(config.model.dtype == 'float64'):
    schedule = run_lib.Schedule(config, stand_in)
    steps = run_lib.make_steps(config, stand_in, schedule)
    parallel = DataParallel(config.parallel, devices=jax.local_devices()[:1])
    state = jax.eval_shape(
      lambda: state_lib.init_state(
        steps.model,
        steps.optimizer,
        config.seed,
        shape,
        ema=config.ema_decay > 0,
      )
    )
    # One sample says what a batch is made of, which itself may not fit.
    sample = data.train_batch(
      stand_in, 1, config.seed, 0, with_partners=augmentation.mixes(config)
    )

    def of_batch(on_host, on_device):
      # For `pmap` there is an axis of devices before that of the batch.
      axis = on_device.ndim - on_host.ndim
      shape = list(on_device.shape)
      shape[axis] = batch_size
      return jax.ShapeDtypeStruct(
        shape, on_device.dtype, sharding=on_device.sharding
      )

    batch = jax.tree.map(of_batch, sample, parallel.put(sample))
    return parallel.map(steps.train, donate=True).lower(state, batch).compile()


def measure(config: ml_collections.ConfigDict, batch_size: int) -> int:
  """Bytes that the compiled training step takes, by `memory_analysis`.

  Arguments, results that are no arguments' buffers, and temporaries, on one
  device for a batch of `batch_size` samples; nothing is executed.
  """
  taken = compile_step(config, batch_size).memory_analysis()
  return (
    taken.argument_size_in_bytes
    + taken.output_size_in_bytes
    - taken.alias_size_in_bytes
    + taken.temp_size_in_bytes
  )


def predict(config: ml_collections.ConfigDict, batch_size: int) -> Footprint:
  """Memory near a batch size, from the compilation of smaller batches.

  Args:
    config: the configuration.
    batch_size: samples on one device; the larger of the two batches that are
      compiled is half as large.

  Raises:
    UserError: fewer than 4 samples, which no smaller batches tell of.
  """
  if batch_size < 4:
    raise UserError(
      'a prediction is made from smaller batches and needs at least 4 samples '
      f'a device, got {batch_size}; config.batch_size is that of all devices'
    )
  small, large = batch_size // 4, batch_size // 2
  of_small, of_large = (measure(config, size) for size in (small, large))
  per_sample = (of_large - of_small) / (large - small)
  return Footprint(of_large - large * per_sample, per_sample)


def largest_batch(
  config: ml_collections.ConfigDict,
  limit: int,
  size: int,
  predicted: Footprint,
) -> int:
  """The largest batch of one device that fits, by prediction.

  Args:
    config: the configuration.
    limit: bytes of the device.
    size: samples of a batch, at least 4.
    predicted: what `predict` says near that batch.

  Returns:
    Samples; 0 if fewer than 4 fit.
  """
  for _ in range(_MOST_PREDICTIONS):
    fits = predicted.largest_batch(limit)
    if fits < 4:
      return 0
    # Near what was predicted, or as large as is looked for.
    nearer = min(fits, 8 * size, _LARGEST_BATCH)
    if size // 2 <= fits <= 2 * size or nearer == size:
      break
    size, predicted = nearer, predict(config, nearer)
  return fits
