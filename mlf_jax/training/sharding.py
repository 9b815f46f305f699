"""Runs steps on all devices of all processes, the batch divided among them."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlf_jax.errors import UserError

AXIS = 'data'

Tree = TypeVar('Tree')

# By default XLA schedules for concurrency on CPUs. Scheduled for memory, a step
# needs a quarter to a half less memory for temporaries and no more time.
_CPU_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}


def compiler_options(platform: str) -> dict[str, str]:
  """Compiler options of the steps on a platform: 'cpu', 'gpu' or 'tpu'."""
  return _CPU_OPTIONS if platform == 'cpu' else {}


def _all_devices():
  try:
    devices = jax.devices()
  # The type of the error depends on what keeps the platform from starting.
  except Exception as error:
    platforms = jax.config.jax_platforms or 'any platform'
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(
      f'JAX finds no device on {platforms} ({reason}); JAX_PLATFORMS=cpu '
      'always works'
    ) from None
  # The rows of a batch that a process loads are then next to each other.
  return sorted(devices, key=lambda device: (device.process_index, device.id))


class DataParallel:
  """Divides batches among devices and runs steps on all of them.

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
      devices: devices to use; all devices of all processes by default.

    Raises:
      UserError: there is no device, or 'pmap' was asked for in one of several
        processes.
    """
    self._kind = kind
    self._devices = list(devices or _all_devices())
    self.num_devices = len(self._devices)
    if kind == 'pmap' and jax.process_count() > 1:
      raise UserError(
        "config.parallel 'pmap' runs in one process, but there are "
        f"{jax.process_count()}; 'shard_map' runs in any number"
      )
    self._mesh = jax.sharding.Mesh(
      np.array(self._devices), (AXIS,), axis_types=(AxisType.Auto,)
    )
    self.divided = NamedSharding(self._mesh, PartitionSpec(AXIS))
    self.replicated = NamedSharding(self._mesh, PartitionSpec())
    # Devices stand in the order of their processes.
    here = jax.process_index()
    own = [device.process_index == here for device in self._devices]
    self._first_own, self._num_own = own.index(True), sum(own)

  def rows(self, batch_size: int) -> slice:
    """The rows of a batch that the devices of this process compute."""
    per_device = batch_size // self.num_devices
    first = self._first_own * per_device
    return slice(first, first + self._num_own * per_device)

  def shard_batch(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends each device its part of a batch.

    Args:
      batch: the `rows` of the batch that belong to this process, so all of them
        if there is only one.

    Returns:
      The whole batch, [batch, ...], on the devices of all processes.
    """
    if self._kind == 'pmap':
      batch = {
        k: v.reshape((self.num_devices, -1, *v.shape[1:]))
        for k, v in batch.items()
      }
    # In several processes JAX takes this for a hidden transfer.
    with jax.transfer_guard_host_to_device('allow'):
      return jax.tree.map(
        functools.partial(jax.make_array_from_process_local_data, self.divided),
        batch,
      )

  def replicate(self, tree: Tree) -> Tree:
    """Puts a copy on every device, in buffers that may be donated.

    Args:
      tree: pytree of arrays that this process holds; equal in all processes.
    """
    copy = jax.jit(
      lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=self.replicated
    )
    return copy(jax.device_get(tree))

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


def all_reduce(
  reduce: Callable[[jax.Array, str], jax.Array],
  tree: Tree,
  axis_name: str | None,
) -> Tree:
  """Reduces all leaves over the devices in a single all-reduce.

  Many small ones would each wait for the network between machines.

  Args:
    reduce: `jax.lax.psum` or `jax.lax.pmean`.
    tree: pytree of arrays of this device.
    axis_name: axis over which the batch is divided; None if it is not.
  """
  if axis_name is None or jax.lax.axis_size(axis_name) == 1:
    return tree
  flat, unravel = jax.flatten_util.ravel_pytree(tree)
  return unravel(reduce(flat, axis_name))
