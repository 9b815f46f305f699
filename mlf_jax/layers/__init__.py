"""Layers of spiking networks, and the seams for parts of one's own."""

from mlf_jax.layers import memory_modes
from mlf_jax.layers.factory import LayerFactory
from mlf_jax.layers.integer_units import IntegerLIF, MultiHierarchical
from mlf_jax.layers.integrating_unit import IntegratingUnit
from mlf_jax.layers.learned_mlf import LearnedMLF
from mlf_jax.layers.lif_units import LIF, ParametricLIF, Ternary
from mlf_jax.layers.normalization import (
  NORMALIZATIONS,
  AffineOverTime,
  BatchNorm,
  TDBatchNorm,
  TEBatchNorm,
)
from mlf_jax.layers.spiking_units import (
  INITIAL_STATE,
  MEMBRANE_POTENTIAL,
  MLF,
  OBSERVED,
  UNITS,
  Observation,
  ReLU,
  SpikingUnit,
  SpikingUnits,
)
from mlf_jax.layers.time_axis import (
  Readout,
  fold_time_into_batch,
  repeat_over_time,
)
from mlf_jax.layers.timestep_dropout import TimestepDropout

__all__ = [
  'INITIAL_STATE',
  'LIF',
  'MEMBRANE_POTENTIAL',
  'MLF',
  'NORMALIZATIONS',
  'OBSERVED',
  'UNITS',
  'AffineOverTime',
  'BatchNorm',
  'IntegerLIF',
  'IntegratingUnit',
  'LayerFactory',
  'LearnedMLF',
  'MultiHierarchical',
  'Observation',
  'ParametricLIF',
  'ReLU',
  'Readout',
  'SpikingUnit',
  'SpikingUnits',
  'TDBatchNorm',
  'TEBatchNorm',
  'Ternary',
  'TimestepDropout',
  'fold_time_into_batch',
  'memory_modes',
  'repeat_over_time',
]

UNITS.seal()
