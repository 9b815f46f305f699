"""Multi-level firing neurons and spiking DS-ResNet in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING

from mlf_jax import errors, layers, models, neuron, stream
from mlf_jax.errors import UserError
from mlf_jax.neuron import MLFParams, MLFState, mlf

if TYPE_CHECKING:  # For editors and the reference.
  from mlf_jax.interop.scikit_learn import SpikingClassifier
  from mlf_jax.interop.trained import load

__version__ = '0.1.0'

__all__ = [
  'MLFParams',
  'MLFState',
  'SpikingClassifier',
  'UserError',
  'errors',
  'layers',
  'load',
  'mlf',
  'models',
  'neuron',
  'stream',
]

# Names of modules that import Orbax or scikit-learn, which takes seconds: at
# first use.
_LAZY = {
  'SpikingClassifier': 'mlf_jax.interop.scikit_learn',
  'load': 'mlf_jax.interop.trained',
}


def __getattr__(name: str):
  """Imports the module that defines a name, at first use."""
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
  """Names of the package, those that are not imported yet among them."""
  return sorted({*globals(), *__all__})
