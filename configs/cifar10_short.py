"""The paper's CIFAR-10 network, trained for as many epochs as time allows.

`--config=cifar10_short:VARIANT`, VARIANT one of: ds20 (default), plain20 (the
baseline: plain spiking ResNet) or lif (ds20 with one level). The learning rate
falls along a cosine to the last of `num_epochs`, batches are of 128; everything
else is the paper's.
"""

from mlf_jax.errors import UserError
from mlf_jax.training import default_config


def get_config(variant='ds20'):
  config = default_config()
  if variant == 'plain20':
    config.model.residual = 'plain'
  elif variant == 'lif':
    config.unit.thresholds = config.unit.thresholds[:1]
  elif variant != 'ds20':
    raise UserError(
      f'unknown variant {variant!r} of the configuration; known: ds20, '
      'plain20, lif'
    )
  config.batch_size = 128
  config.num_epochs = 50
  config.schedule.name = 'cosine'
  return config
