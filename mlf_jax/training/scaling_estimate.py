"""Time of a training step on many chips, predicted before any is there.

The step is compiled for CPU devices and never run. Its own costs and the speeds
of a chip give the time; `docs/scaling.md` has the model.
"""

import concurrent.futures
import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence

import jax
import ml_collections

from mlf_jax.errors import UserError
from mlf_jax.layers import convolution_vjp
from mlf_jax.training.chips import Chip
from mlf_jax.training.memory_estimate import compile_step

# Samples per device of the two batches that are compiled. In small ones fewer
# neurons run in loops over tiles, of which XLA counts one pass.
_BATCHES = 4, 8
# Nothing is run: generated code need not be good.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_parallel_codegen_split_count': 1,
}
_ALL_REDUCE = re.compile(r' = (.+?) all-reduce(?:-start)?\(')
_ARRAY = re.compile(r'\b(?:f|bf|s|u)(\d+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Linear:
  """A cost that grows with the samples on a device."""

  fixed: float
  per_sample: float

  def at(self, batch_size: float) -> float:
    """The cost for that many samples."""
    return self.fixed + batch_size * self.per_sample

  def batch_size(self, cost: float) -> float:
    """Samples with that cost."""
    return (cost - self.fixed) / self.per_sample


@dataclasses.dataclass(frozen=True)
class AllReduces:
  """All-reduces of a step: how many, and their bytes together."""

  count: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class StepCosts:
  """Costs of a training step on one device, by `compiled.cost_analysis()`.

  Attributes:
    flops: floating-point operations.
    bytes: bytes read from memory and written to it.
    all_reduces: those of a step on two or more devices; their number and bytes
      depend neither on the devices nor on the batch.
  """

  flops: Linear
  bytes: Linear
  all_reduces: AllReduces


@dataclasses.dataclass(frozen=True)
class Plan:
  """Predicts times of steps on a kind of chip.

  Attributes:
    costs: costs of the step.
    chip: speeds of the chip and its links.
    dtype: `config.model.dtype`, of the convolutions.
    attained: share of the chip's peak FLOP/s or memory bandwidth that a step
      attains.
  """

  costs: StepCosts
  chip: Chip
  dtype: str
  attained: float

  def compute_seconds(self, batch_size: float) -> float:
    """Seconds of the computation for that many samples per device."""
    return max(cost.at(batch_size) / speed for cost, speed in self._roofline())

  def all_reduce_seconds(self, num_devices: int) -> float:
    """Seconds of the all-reduces; `num_devices` is a power of two."""
    all_reduces = self.costs.all_reduces
    return self.chip.all_reduce_seconds(
      num_devices, all_reduces.count, all_reduces.bytes
    )

  def step_seconds(self, batch_size: float, num_devices: int) -> float:
    """Seconds of a step; nothing is computed during an all-reduce."""
    compute = self.compute_seconds(batch_size)
    return compute + self.all_reduce_seconds(num_devices)

  def balanced_batch_size(self, num_devices: int) -> int:
    """Fewest samples per device whose computation takes as long as all-reduces.

    With fewer, communication dominates. At least 1.
    """
    seconds = self.all_reduce_seconds(num_devices)
    needed = min(
      cost.batch_size(seconds * speed) for cost, speed in self._roofline()
    )
    return max(1, math.ceil(needed))

  def _roofline(self):
    """Each cost with the speed at which it is met."""
    return (
      (self.costs.flops, self.attained * self.chip.flops[self.dtype]),
      (self.costs.bytes, self.attained * self.chip.memory_bandwidth),
    )


def all_reduces_in(program: str) -> AllReduces:
  """Counts the all-reduces of a compiled program, none of them in a loop.

  Args:
    program: text of a `jax.stages.Compiled`.
  """
  results = [match[1] for match in _ALL_REDUCE.finditer(program)]
  sizes = [
    int(bits) // 8 * math.prod(int(side) for side in shape.split(',') if side)
    for result in results
    for bits, shape in _ARRAY.findall(result)
  ]
  return AllReduces(len(results), sum(sizes))


def two_cpu_devices() -> list[jax.Device]:
  """Two CPU devices, on any machine.

  Raises:
    UserError: this process has already started JAX with only one.
  """
  # It fails if JAX has started.
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_num_cpu_devices', 2)
  devices = jax.devices('cpu')[:2]
  if len(devices) < 2:
    raise UserError(
      'the step is compiled for two CPU devices, but JAX has started with one; '
      'JAX_NUM_CPU_DEVICES=2 in the environment gives it two'
    )
  return devices


def all_reduces(
  config: ml_collections.ConfigDict, devices: Sequence[jax.Device]
) -> AllReduces:
  """All-reduces of the training step, compiled for some devices."""
  program = compile_step(_written_out(config), _BATCHES[0], devices, _QUICK)
  return all_reduces_in(program.as_text())


def step_costs(config: ml_collections.ConfigDict) -> StepCosts:
  """Costs of the training step, whatever `config.batch_size`.

  The step is compiled for two batches on one CPU device, and for two devices,
  which all-reduce.

  Raises:
    UserError: as of `two_cpu_devices`.
  """
  devices = two_cpu_devices()

  def compile_alone(batch_size):
    return compile_step(_written_out(config), batch_size, devices[:1], _QUICK)

  with (
    convolution_vjp.as_on_accelerators(),
    concurrent.futures.ThreadPoolExecutor() as threads,
  ):
    together = threads.submit(all_reduces, config, devices)
    small_step, large_step = threads.map(compile_alone, _BATCHES)

  def linear(name):
    small_cost, large_cost = (
      step.cost_analysis()[name] for step in (small_step, large_step)
    )
    small, large = _BATCHES
    per_sample = (large_cost - small_cost) / (large - small)
    return Linear(max(0.0, large_cost - large * per_sample), per_sample)

  return StepCosts(linear('flops'), linear('bytes accessed'), together.result())


def _written_out(config):
  """The configuration without loops over blocks.

  XLA counts the costs of a loop once, however often it runs.
  """
  config = config.copy_and_resolve_references()
  if 'scan_blocks' in config.model:
    config.model.scan_blocks = False
  return config
