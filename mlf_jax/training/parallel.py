"""A step over all local devices, the batch divided among them."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlf_jax.errors import UserError

AXIS = 'data'

# XLA schedules for concurrency on CPUs. With this it takes a quarter to a half
# less memory for temporaries, and no more time.
_CPU_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def compiler_options(platform: str) -> dict[str, str]:
  """Options of the compiler for the steps, on 'cpu', 'gpu' or 'tpu'."""
  return _CPU_OPTIONS if platform == 'cpu' else {}


def _local_devices():
  try:
    return jax.local_devices()
  # What JAX raises depends on what keeps the platform from starting.
  except Exception as error:
    platforms = jax.config.jax_platforms or 'any platform'
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(
      f'JAX finds no device on {platforms} ({reason}); JAX_PLATFORMS=cpu '
      'always works'
    ) from None


class DataParallel:
  """Divides batches and runs steps on every local device.

  The step is one pure function of (replicated, batch) that averages over the
  axis `AXIS` itself. State stays replicated; both kinds give the same numbers.
  """

  def __init__(self, kind: str = 'shard_map', devices=None):
    """Sets up the devices.

    Args:
      kind: 'shard_map' for `jit(shard_map(step))`, or 'pmap'.
      devices: devices to use; all local ones by default.
    """
    self._kind = kind
    self._devices = list(devices or _local_devices())
    self._mesh = jax.sharding.Mesh(
      np.array(self._devices), (AXIS,), axis_types=(AxisType.Auto,)
    )

  @property
  def num_devices(self) -> int:
    """Number of devices a batch is divided among."""
    return len(self._devices)

  @property
  def divided(self) -> NamedSharding:
    """Sharding of a batch under 'shard_map': a part on every device."""
    return NamedSharding(self._mesh, PartitionSpec(AXIS))

  @property
  def replicated(self) -> NamedSharding:
    """Sharding of the state: a copy on every device."""
    return NamedSharding(self._mesh, PartitionSpec())

  def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends each device its part of a batch, [batch, ...]."""
    if self._kind == 'pmap':
      batch = {
        k: v.reshape((self.num_devices, -1, *v.shape[1:]))
        for k, v in batch.items()
      }
    return jax.device_put(batch, self.divided)

  def map(self, step: Callable, *, donate: bool = False) -> Callable:
    """The step as a jitted function over all devices.

    Args:
      step: (replicated, batch) to a replicated result.
      donate: whether the first argument's buffers are reused for the result.

    Returns:
      The function, which takes batches from `put`.
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
        # Gradients are averaged explicitly, not by transposition.
        check_vma=False,
      ),
      donate_argnums=donate_argnums,
      compiler_options=compiler_options(self._devices[0].platform),
    )
