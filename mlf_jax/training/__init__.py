"""Training and evaluation.

config = default_config(data='digits')
result = train(config)
line = evaluate('runs/digits')
"""

import importlib
from typing import TYPE_CHECKING

from mlf_jax.training.config import NETWORKS, NetworkEntry, with_fields
from mlf_jax.training.config import default as default_config
from mlf_jax.training.losses import LOSSES, Loss

if TYPE_CHECKING:  # For editors and the reference.
  from mlf_jax.training.evaluation import Restored, evaluate, restore
  from mlf_jax.training.trainer import Diverged, Interrupted, train

# Modules that import Orbax and TensorBoard, which takes seconds: only when one
# of their names is used, so that configuration files and `--help` are quick.
_LAZY = {
  'Diverged': 'trainer',
  'Interrupted': 'trainer',
  'train': 'trainer',
  'Restored': 'evaluation',
  'evaluate': 'evaluation',
  'restore': 'evaluation',
}

__all__ = [
  'LOSSES',
  'NETWORKS',
  'Diverged',
  'Interrupted',
  'Loss',
  'NetworkEntry',
  'Restored',
  'default_config',
  'evaluate',
  'restore',
  'train',
  'with_fields',
]


def __getattr__(name: str):
  """Imports the module that defines a name, at first use."""
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)


def __dir__() -> list[str]:
  """Public names, those that are not imported yet among them."""
  return __all__
