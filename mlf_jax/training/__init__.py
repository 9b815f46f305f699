"""Training and evaluation.

config = default_config(data='digits')
result = train(config)
line = evaluate('runs/digits')
"""

from mlf_jax.training.config import NETWORKS, NetworkEntry
from mlf_jax.training.config import default as default_config
from mlf_jax.training.evaluation import Restored, evaluate, restore
from mlf_jax.training.losses import LOSSES, Loss
from mlf_jax.training.trainer import Interrupted, train

__all__ = [
  'LOSSES',
  'NETWORKS',
  'Interrupted',
  'Loss',
  'NetworkEntry',
  'Restored',
  'default_config',
  'evaluate',
  'restore',
  'train',
]
