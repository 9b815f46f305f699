"""Spiking ResNets of a quarter of the paper's width on Fashion-MNIST.

`--config=fashion_mnist:VARIANT`, VARIANT one of: ds8, ds14, ds20 (default) ...,
or plain8, plain14, plain20 ... (the baseline: plain spiking ResNet). A shallow
network sees more epochs in the same time.
"""

import re

from mlf_jax.errors import UserError
from mlf_jax.training import default_config


def get_config(variant='ds20', data='fashion_mnist'):
  match = re.fullmatch(r'(ds|plain)(\d+)', variant)
  if match is None:
    raise UserError(
      f'unknown variant {variant!r} of the configuration; known: ds8, ds14, '
      'ds20 ..., plain8, plain14, plain20 ...'
    )
  config = default_config(data=data)
  config.model.residual = match[1]
  config.model.depth = int(match[2])
  config.model.widths = (16, 32, 64)
  config.batch_size = 128
  config.num_epochs = 60
  config.augment.crop_padding = 2
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  return config
