"""Measures of the activity of spiking units, as counts that add up.

A pair is a unit at a timestep of a sample. It is dormant if the membrane
potential of no level lies inside that level's surrogate window, so that no
gradient passes it directly.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
sections 3.1 and 3.2.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from mlf_jax.activity.capture import (
  capture_units,
  depth_order,
  in_order,
  require_units,
)
from mlf_jax.errors import UserError
from mlf_jax.layers import Observation, SpikingUnit

# Without an accelerator a histogram takes a while; one level in ten of a window
# is fine enough to see its borders.
_BINS_PER_WIDTH = 10
_WIDTHS_AROUND = 3


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=(
    'samples',
    'pairs',
    'spikes',
    'in_window',
    'outputs',
    'dormant',
    'dormant_throughout',
    'active',
    'membranes',
  ),
  meta_fields=(),
)
@dataclasses.dataclass(frozen=True, eq=False)
class LayerActivity:
  """Activity of the units of one layer: a pytree of counts, which add up.

  Over devices `jax.lax.psum` adds them, over batches `merge`. On a device they
  are int32: for fewer than 2**31 pairs.

  The properties are shares and means, float64 on the host.

  Attributes:
    samples: samples.
    pairs: (unit, timestep) pairs of all samples.
    spikes: pairs in which each level fired.
    in_window: pairs in which each level's membrane potential lay inside its
      surrogate window.
    outputs: pairs in which 0, 1, ..., K levels fired.
    dormant: dormant pairs.
    dormant_throughout: samples in which each unit was dormant at every
      timestep. If measured per sample, 0 or 1 with an axis for the samples in
      front.
    active: pairs of each unit in which at least one level fired.
    membranes: histogram of each level's membrane potentials before the reset;
      None unless asked for. The first bin is what lies below the first edge,
      the last what lies at or above the last.
  """

  samples: Int[Array, '']
  pairs: Int[Array, '']
  spikes: Int[Array, 'level']
  in_window: Int[Array, 'level']
  outputs: Int[Array, 'level+1']
  dormant: Int[Array, '']
  dormant_throughout: Int[Array, '*shape']
  active: Int[Array, '*shape']
  membranes: Int[Array, 'level bin'] | None = None

  @classmethod
  def of(
    cls,
    observation: Observation,
    mask: Num[Array, 'batch'] | None = None,
    edges: tuple[float, ...] | None = None,
    per_sample: bool = False,
  ) -> 'LayerActivity':
    """Counts what was observed in units; pure, for jit too.

    Args:
      observation: arrays [time, level, batch, *shape].
      mask: samples with 0 do not count.
      edges: increasing membrane potentials between the bins of the histogram;
        None for no histogram.
      per_sample: whether `dormant_throughout` keeps the axis of the samples,
        as `join` needs it.
    """
    u, fired, in_window = observation
    time_steps, num_levels, batch, *shape = u.shape
    if mask is None:
      mask = jnp.ones(batch, bool)
    mask = mask.astype(bool).reshape((batch,) + (1,) * len(shape))
    fired, in_window = (a & mask[None, None] for a in (fired, in_window))
    each_level = (0, *range(2, u.ndim))
    number = fired.sum(1, dtype=jnp.int32)  # [time, batch, *shape]
    dormant = ~in_window.any(1) & mask[None]
    throughout = dormant.all(0).astype(jnp.int32)  # [batch, *shape]
    samples = mask.sum(dtype=jnp.int32)
    return cls(
      samples=samples,
      pairs=samples * (time_steps * int(np.prod(shape))),
      spikes=fired.sum(each_level, dtype=jnp.int32),
      in_window=in_window.sum(each_level, dtype=jnp.int32),
      outputs=jnp.stack(
        [
          ((number == n) & mask[None]).sum(dtype=jnp.int32)
          for n in range(num_levels + 1)
        ]
      ),
      dormant=dormant.sum(dtype=jnp.int32),
      dormant_throughout=throughout if per_sample else throughout.sum(0),
      active=(number > 0).sum((0, 1), dtype=jnp.int32),
      membranes=None if edges is None else _histogram(u, mask, edges),
    )

  @property
  def num_levels(self) -> int:
    """Number of levels K."""
    return self.spikes.shape[0]

  @property
  def firing_rate(self) -> float:
    """Mean number of levels that fire in a pair, 0 to K."""
    return _share(np.sum(self.spikes), self.pairs)

  @property
  def firing_rate_by_level(self) -> Float[np.ndarray, 'level']:
    """Share of pairs in which each level fires."""
    return _share(self.spikes, self.pairs)

  @property
  def in_window_by_level(self) -> Float[np.ndarray, 'level']:
    """Share of pairs in which each level lies inside its surrogate window."""
    return _share(self.in_window, self.pairs)

  @property
  def dormant_share(self) -> float:
    """Share of pairs that are dormant."""
    return _share(self.dormant, self.pairs)

  @property
  def dormant_throughout_share(self) -> float:
    """Share of (unit, sample) pairs that are dormant at every timestep."""
    units = np.size(self.active)
    return _share(np.sum(self.dormant_throughout), self.samples * units)

  @property
  def never_fires_share(self) -> float:
    """Share of units that fire at no timestep of any sample."""
    return float(np.mean(np.asarray(self.active) == 0))

  @property
  def always_fires_share(self) -> float:
    """Share of units that fire at every timestep of every sample."""
    active = np.asarray(self.active)
    return float(np.mean(active * active.size == np.asarray(self.pairs)))

  @property
  def output_distribution(self) -> Float[np.ndarray, 'level+1']:
    """Share of pairs in which 0, 1, ..., K levels fire."""
    return _share(self.outputs, self.pairs)

  @property
  def effective_levels(self) -> float:
    """Effective number of levels used, 1 to K; 0 if nothing fires.

    The exponential of the entropy of the number of levels that fire, over the
    pairs in which at least one does: K if 1, ..., K are equally frequent, 1 if
    it is always the same number.
    """
    firing = np.asarray(self.outputs, np.float64)[1:]
    if not firing.sum():
      return 0.0
    p = firing[firing > 0] / firing.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def _share(count, total):
  """Count over total as float64; NaN if nothing was counted."""
  total = np.asarray(total, np.float64)
  share = np.asarray(count, np.float64) / (total if total else np.nan)
  return share if share.ndim else float(share)


def _histogram(u, mask, edges):
  """Histogram of each level's membrane potentials of the samples that count."""
  bins = jnp.searchsorted(jnp.asarray(edges, u.dtype), u, side='right')
  # A bin of its own for samples that do not count, which is then left out.
  bins = jnp.where(mask[None, None], bins, len(edges) + 1)
  count = functools.partial(jnp.bincount, length=len(edges) + 2)
  levels = bins.swapaxes(0, 1).reshape((u.shape[1], -1))
  return jax.vmap(count)(levels)[:, :-1].astype(jnp.int32)


def membrane_edges(unit: SpikingUnit) -> Float[np.ndarray, 'edge']:
  """Edges of a histogram of membrane potentials, for `measure`.

  Thresholds and borders of windows one width apart lie on edges.

  Args:
    unit: description of the units; its `thresholds` and `width` decide, and
      otherwise `norm_threshold` and 1.
  """
  thresholds = getattr(unit, 'thresholds', (unit.norm_threshold,))
  width = getattr(unit, 'width', 1.0)
  span = (thresholds[-1] - thresholds[0]) / width + 2 * _WIDTHS_AROUND
  steps = np.arange(round(span * _BINS_PER_WIDTH) + 1) / _BINS_PER_WIDTH
  return thresholds[0] + width * (steps - _WIDTHS_AROUND)


def measure(
  model: nn.Module,
  variables: Mapping[str, Any],
  inputs: Num[Array, 'batch ...'],
  *,
  mask: Num[Array, 'batch'] | None = None,
  edges: Float[np.ndarray, 'edge'] | None = None,
  per_sample: bool = False,
  train: bool = False,
) -> dict[str, LayerActivity]:
  """Measures the activity of all units of a network on a batch.

  Compiled once for every network and shape.

  Args:
    model: the network.
    variables: `params`, `batch_stats`, and `membrane_potential` for the next
      piece of a recording (`stream.StreamState.collection`).
    inputs: input of the network.
    mask: samples with 0 do not count, such as what fills up the last batch.
    edges: see `LayerActivity.of` and `membrane_edges`.
    per_sample: see `LayerActivity.of`; for pieces of recordings.
    train: whether to normalise with the statistics of the batch, as is
      necessary in a network that was never trained; a network with dropout
      needs `capture` then. For networks whose `__call__` takes `train`.

  Returns:
    Layers to their activity, in the order of computation. Of batches
    `jax.tree.map(jnp.add, ...)`, over devices `jax.lax.psum`, adds them up on
    the devices, `merge` on the host.

  Raises:
    UserError: the units do not offer `observe`, or there are none; or `train`
      is true and the network does not take it.
  """
  if edges is not None:
    edges = tuple(float(edge) for edge in edges)
  layers = _measure(model, variables, inputs, mask, edges, per_sample, train)
  require_units(layers, model)
  return in_order(layers, depth_order(model, inputs))


@functools.partial(
  jax.jit, static_argnames=('model', 'edges', 'per_sample', 'train')
)
def _measure(model, variables, inputs, mask, edges, per_sample, train):
  count = lambda seen: LayerActivity.of(seen, mask, edges, per_sample)
  return capture_units(model, variables, inputs, count, train)


def merge(*batches: Mapping[str, LayerActivity]) -> dict[str, LayerActivity]:
  """Activity over several batches of samples, exact, on the host (int64)."""
  first, *rest = (
    {path: _over_samples(layer) for path, layer in batch.items()}
    for batch in batches
  )
  return {
    path: _add(layer, *(batch[path] for batch in rest))
    for path, layer in first.items()
  }


def join(*pieces: Mapping[str, LayerActivity]) -> dict[str, LayerActivity]:
  """Activity of recordings that were fed in pieces: that of the whole.

  Args:
    *pieces: of the same recordings, in any order, measured with `per_sample`,
      each with the membrane potentials after the one before.

  Returns:
    On the host, per sample like the pieces; `merge` adds several of them.

  Raises:
    UserError: a piece was not measured per sample, or of other recordings.
  """
  return {
    path: _joined([piece[path] for piece in pieces]) for path in pieces[0]
  }


def _add(*layers):
  return jax.tree.map(
    lambda *counts: sum(np.asarray(count, np.int64) for count in counts),
    *layers,
  )


def _over_samples(layer):
  """The activity without an axis for the samples."""
  if np.ndim(layer.dormant_throughout) == np.ndim(layer.active):
    return layer
  throughout = np.asarray(layer.dormant_throughout, np.int64).sum(0)
  return dataclasses.replace(layer, dormant_throughout=throughout)


def _joined(pieces):
  throughout = [np.asarray(piece.dormant_throughout) for piece in pieces]
  shapes = {array.shape for array in throughout}
  if len(shapes) > 1 or throughout[0].ndim == np.ndim(pieces[0].active):
    raise UserError(
      'join needs pieces of the same recordings, each of measure(..., '
      f'per_sample=True); got samples and units of shapes {sorted(shapes)}'
    )
  return dataclasses.replace(
    _add(*pieces),
    samples=np.asarray(pieces[0].samples, np.int64),
    dormant_throughout=np.min(throughout, axis=0),
  )
