"""Runs steps on all local devices, the batch divided among them."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlf_jax.errors import UserError

AXIS = 'data'

# By default XLA schedules for concurrency on CPUs. Scheduled for memory, a step
# needs a quarter to a half less memory for temporaries and no more time.
_CPU_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def compiler_options(platform: str) -> dict[str, str]:
  """Compiler options of the steps on a platform: 'cpu', 'gpu' or 'tpu'."""
  return _CPU_OPTIONS if platform == 'cpu' else {}


def _local_devices():
  try:
    return jax.local_devices()
  # The type of the error depends on what keeps the platform from starting.
  except Exception as error:
    platforms = jax.config.jax_platforms or 'any platform'
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(
      f'JAX finds no device on {platforms} ({reason}); JAX_PLATFORMS=cpu '
      'always works'
    ) from None


class DataParallel:
  """Divides batches among the local devices and runs steps on all of them.

  A step is a pure function of (replicated, batch) that averages over the axis
  `AXIS` itself. The state stays replicated. Both kinds give the same numbers.

  Attributes:
    num_devices: number of devices that a batch is divided among.
    divided: sharding of a batch under 'shard_map', one part per device.
    replicated: sharding of the state, a copy on every device.
  """

  def __init__(self, kind: str = 'shard_map', devices=None):
    """Sets up the devices.

    Args:
      kind: 'shard_map' for `jit(shard_map(step))`, or 'pmap'.
      devices: devices to use; all local ones by default.
    """
    self._kind = kind
    self._devices = list(devices or _local_devices())
    self.num_devices = len(self._devices)
    self._mesh = jax.sharding.Mesh(
      np.array(self._devices), (AXIS,), axis_types=(AxisType.Auto,)
    )
    self.divided = NamedSharding(self._mesh, PartitionSpec(AXIS))
    self.replicated = NamedSharding(self._mesh, PartitionSpec())

  def shard_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends each device its part of a batch, [batch, ...]."""
    if self._kind == 'pmap':
      batch = {
        k: v.reshape((self.num_devices, -1, *v.shape[1:]))
        for k, v in batch.items()
      }
    return jax.device_put(batch, self.divided)

  def parallelize(self, step: Callable, *, donate: bool = False) -> Callable:
    """Returns the step as a jitted function over all devices.

    Args:
      step: maps (replicated, batch) to a replicated result.
      donate: True if the buffers of the first argument may be reused for the
        result.

    Returns:
      The function, which takes batches from `shard_batch`.
    """
    donate_argnums = (0,) if donate else ()
    if self._kind == 'pmap':
      return jax.pmap(
        step,
        AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=self._devices,
        donate_argnums=donate_argnums,
      )
    return jax.jit(
      jax.shard_map(
        step,
        mesh=self._mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(),
        # The steps average gradients themselves: with this check they would
        # come out multiplied by the number of devices.
        check_vma=False,
      ),
      donate_argnums=donate_argnums,
      compiler_options=compiler_options(self._devices[0].platform),
    )
