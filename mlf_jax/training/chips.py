"""Speeds of accelerators and of the links between them.

They are what data sheets promise; `docs/scaling.md` says where each is from.
Bandwidths are bytes per second in one direction, latencies seconds.
"""

import dataclasses
import math
from typing import Protocol


class Links(Protocol):
  """The fast links that join chips: a box of GPUs, or a slice of TPUs.

  Attributes:
    most: how many chips they join.
    latency: of one step of an all-reduce.
  """

  most: int
  latency: float

  def all_reduce_path(self, num_chips: int) -> tuple[float, int]:
    """Bandwidth of each chip in an all-reduce, and its steps in sequence."""


@dataclasses.dataclass(frozen=True)
class Switch:
  """Chips at a switch, which all-reduce in a ring.

  Attributes:
    most: how many chips it joins.
    bandwidth: between a chip and the switch.
    latency: of one step of the ring.
  """

  most: int
  bandwidth: float
  latency: float

  def all_reduce_path(self, num_chips: int) -> tuple[float, int]:
    """As in `Links`."""
    return self.bandwidth, 2 * (num_chips - 1)


@dataclasses.dataclass(frozen=True)
class Torus:
  """Chips in a grid that is as square as can be, linked to their neighbours.

  Attributes:
    most: how many chips it joins.
    link_bandwidth: between two neighbours.
    latency: of one hop between neighbours.
    num_axes: axes of the grid.
    ring_length: an axis is a ring if its length is a multiple of this, and a
      line if it is not, with half of the bandwidth.
  """

  most: int
  link_bandwidth: float
  latency: float
  num_axes: int
  ring_length: int

  def all_reduce_path(self, num_chips: int) -> tuple[float, int]:
    """As in `Links`, over all axes at once; `num_chips` is a power of two."""
    links = hops = 0
    for i in range(self.num_axes):
      length = 2 ** ((int(math.log2(num_chips)) + i) // self.num_axes)
      is_ring = length % self.ring_length == 0
      if length > 1:
        links += 2 if is_ring else 1
      hops += length // 2 if is_ring else length - 1
    # One pass sums the parts, another one distributes the sums.
    return links * self.link_bandwidth, 2 * hops


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator, as JAX sees a device, and its links to others.

  Attributes:
    flops: peak FLOP/s of convolutions by the dtype of the configuration, at
      JAX's default precision.
    memory_bandwidth: of its memory, reading and writing together.
    links: what joins the chips of a box or slice.
    network_bandwidth: of its share of the network between boxes or slices.
    network_latency: of one step over that network.
    start: seconds that an all-reduce takes to start.
  """

  flops: dict[str, float]
  memory_bandwidth: float
  links: Links
  network_bandwidth: float
  network_latency: float
  start: float

  def all_reduce_seconds(
    self, num_chips: int, count: int, size: float
  ) -> float:
    """Seconds that all-reduces take, one after the other.

    Each is a reduce-scatter inside the boxes or slices, an all-reduce between
    them, and an all-gather inside.

    Args:
      num_chips: chips that take part, a power of two.
      count: how many all-reduces there are.
      size: bytes of all of them together.
    """
    if num_chips == 1:
      return 0.0
    inside = min(num_chips, self.links.most)
    outside = num_chips // inside
    latency, seconds = self.start, 0.0
    if inside > 1:
      bandwidth, steps = self.links.all_reduce_path(inside)
      latency += steps * self.links.latency
      seconds += _ring_bytes(inside, size) / bandwidth
    # Between boxes a tree is up and down in 2 log2(n) steps.
    latency += 2 * math.log2(outside) * self.network_latency
    seconds += _ring_bytes(outside, size / inside) / self.network_bandwidth
    return seconds + count * latency


def _ring_bytes(num_chips, size):
  """Bytes that each chip sends in a ring all-reduce of `size` bytes."""
  return 2 * (num_chips - 1) / num_chips * size


_HOPPER = Chip(
  flops={'float32': 494.7e12, 'bfloat16': 989.4e12, 'float64': 66.9e12},
  memory_bandwidth=3.35e12,
  links=Switch(most=8, bandwidth=450e9, latency=0.6e-6),
  network_bandwidth=50e9,
  network_latency=5e-6,
  start=6.8e-6,
)

CHIPS: dict[str, Chip] = {
  'h100': _HOPPER,
  'h200': dataclasses.replace(_HOPPER, memory_bandwidth=4.8e12),
  'v5e': Chip(
    flops={'float32': 197e12, 'bfloat16': 197e12},
    memory_bandwidth=819e9,
    links=Torus(256, 50e9, latency=1e-6, num_axes=2, ring_length=16),
    network_bandwidth=3.125e9,
    network_latency=50e-6,
    start=5e-6,
  ),
  'v5p': Chip(
    flops={'float32': 459e12, 'bfloat16': 459e12},
    memory_bandwidth=2765e9,
    links=Torus(4096, 100e9, latency=1e-6, num_axes=3, ring_length=4),
    network_bandwidth=6.25e9,
    network_latency=50e-6,
    start=5e-6,
  ),
}
