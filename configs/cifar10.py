"""The paper's CIFAR-10 network and recipe, and its variants.

`--config=configs/cifar10.py:VARIANT`, VARIANT one of: ds14, ds20 (default),
ds32, ds44, ds68, plain14 ... plain68 (the baseline: plain spiking ResNet), or
vgg16.
"""

import re

from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib


def get_config(variant='ds20'):
  if variant == 'vgg16':
    return config_lib.default('spiking_vgg16')
  match = re.fullmatch(r'(ds|plain)(\d+)', variant)
  if match is None:
    raise UserError(
      f'unknown variant {variant!r} of the configuration; known: ds14, ds20, '
      'ds32, ds44, ds68, plain14, plain20, plain32, plain44, plain68, vgg16'
    )
  config = config_lib.default()
  config.model.residual = match[1]
  config.model.depth = int(match[2])
  return config
