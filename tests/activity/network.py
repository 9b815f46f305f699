"""A tiny network with stride, padding and a projection, counted by hand."""

import functools

import jax.numpy as jnp
import numpy as np

from mlf_jax import activity
from mlf_jax.layers import MLF, SpikingUnits
from mlf_jax.models import SpikingResNet
from tests import quick

UNITS = [
  'units1',
  'layer1_0/units1',
  'layer1_0/units2',
  'layer2_0/shortcut_units',
  'layer2_0/units1',
  'layer2_0/units2',
]
CONVOLUTIONS = [
  'conv1',
  'layer1_0/conv1',
  'layer1_0/conv2',
  'layer2_0/shortcut_conv',
  'layer2_0/conv1',
  'layer2_0/conv2',
]


@functools.cache
def tiny():
  """Network, variables and three images; the sides are odd."""
  model = SpikingResNet((1, 1), (2, 3), 4, 2, unit=MLF((0.4, 1.0), width=0.6))
  x = np.random.default_rng(1).normal(0.5, 2, (3, 5, 7, 1)).astype(np.float32)
  return model, quick.variables(model, jnp.asarray(x)), x


def currents(model, variables, x):
  """Currents [time, batch, ...] of all units, in the order of computation."""

  def hook(module, *args, **kwargs):
    if isinstance(module, SpikingUnits):
      current, affine = args
      return affine(current)

  taken = quick.jit(lambda x: activity.capture(model, variables, x, hook)[1])(x)
  return {
    path: np.asarray(taken[path]).reshape(
      (model.time_steps, -1, *taken[path].shape[1:])
    )
    for path in UNITS
  }


def count_one_by_one(unit, current, edges):
  """Counts of `LayerActivity`, unit by unit and timestep by timestep."""
  time_steps, batch, *shape = current.shape
  num_levels = len(unit.thresholds)
  counts = {
    'pairs': 0,
    'spikes': np.zeros(num_levels, int),
    'in_window': np.zeros(num_levels, int),
    'outputs': np.zeros(num_levels + 1, int),
    'dormant': 0,
    'dormant_throughout': np.zeros(shape, int),
    'active': np.zeros(shape, int),
    'membranes': np.zeros((num_levels, len(edges) + 1), int),
  }
  thresholds = np.float32(unit.thresholds)
  for sample, *place in np.ndindex(batch, *shape):
    u, throughout = np.zeros(num_levels, np.float32), True
    for t in range(time_steps):
      x = current[(t, sample, *place)]
      u = np.where(u > thresholds, 0, np.float32(unit.decay) * u) + x
      fired = u > thresholds
      near = np.abs(u - thresholds) < np.float32(unit.width / 2)
      counts['pairs'] += 1
      counts['spikes'] += fired
      counts['in_window'] += near
      counts['outputs'][fired.sum()] += 1
      counts['dormant'] += not near.any()
      counts['active'][tuple(place)] += fired.any()
      throughout = throughout and not near.any()
      for level in range(num_levels):
        bin = np.sum(u[level] >= np.float32(edges))
        counts['membranes'][level, bin] += 1
    counts['dormant_throughout'][tuple(place)] += throughout
  return counts
