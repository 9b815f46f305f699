"""Multi-level firing neurons and spiking DS-ResNet in JAX and Flax."""

from mlf_jax import errors, layers, models, neuron, stream
from mlf_jax.errors import UserError
from mlf_jax.neuron import MLFParams, MLFState, mlf

__version__ = '0.1.0'

__all__ = [
  'MLFParams',
  'MLFState',
  'UserError',
  'errors',
  'layers',
  'mlf',
  'models',
  'neuron',
  'stream',
]
