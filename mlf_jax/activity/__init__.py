"""Activity inside a network: firing rates, dormant units, gradients.

layers = activity.measure(model, variables, images)
layers['layer1_0/units2'].dormant_share

Layers have the path of their Flax module as name, joined by slashes, and stand
in the order of computation.
"""

from mlf_jax.activity.capture import capture, depth_order, observe
from mlf_jax.activity.gradients import gradient_norms, last_to_first
from mlf_jax.activity.measures import (
  LayerActivity,
  join,
  measure,
  membrane_edges,
  merge,
)

__all__ = [
  'LayerActivity',
  'capture',
  'depth_order',
  'gradient_norms',
  'join',
  'last_to_first',
  'measure',
  'membrane_edges',
  'merge',
  'observe',
]
