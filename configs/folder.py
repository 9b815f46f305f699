"""Your own images or recordings, in folders by class or in a .npz file.

`--config=folder --config.data.dir=DIR` for images, `--config=folder:recordings`
for recordings of an event camera or frames. The network is small; a larger one:
`--config.model.depth=20 --config.model.widths="(64, 128, 256)"`.
"""

from mlf_jax.errors import unknown
from mlf_jax.training import default_config

_VARIANTS = {'images': 'folder', 'recordings': 'recording_folder'}


def get_config(variant='images'):
  if variant not in _VARIANTS:
    raise unknown('variant', variant, _VARIANTS)
  config = default_config(data=_VARIANTS[variant])
  config.model.depth = 8
  config.model.widths = (16, 32, 64)
  config.batch_size = 32 if variant == 'images' else 8
  config.num_epochs = 30
  config.eval_every_epochs = 5.0
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  return config
