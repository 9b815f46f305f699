"""The paper's CIFAR-10 network and recipe, and its variants.

`--config=cifar10:VARIANT`, VARIANT one of: ds14, ds20 (default), ds32, ds44,
ds68, plain14 ... plain68 (the baseline: plain spiking ResNet), or vgg16.
"""

import re

from mlf_jax.errors import UserError
from mlf_jax.training import default_config


def get_config(variant='ds20', data='cifar10'):
  if variant == 'vgg16':
    return default_config(model='spiking_vgg16', data=data)
  match = re.fullmatch(r'(ds|plain)(\d+)', variant)
  if match is None:
    raise UserError(
      f'unknown variant {variant!r} of the configuration; known: ds14, ds20, '
      'ds32, ds44, ds68, plain14, plain20, plain32, plain44, plain68, vgg16'
    )
  config = default_config(data=data)
  config.model.residual = match[1]
  config.model.depth = int(match[2])
  return config
