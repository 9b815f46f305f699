"""The paper's CIFAR-10 network and recipe on CIFAR-100.

`--config=cifar100:VARIANT`, with the variants of `cifar10`.
"""

import pathlib
import runpy

_CIFAR10 = runpy.run_path(str(pathlib.Path(__file__).with_name('cifar10.py')))


def get_config(variant='ds20'):
  return _CIFAR10['get_config'](variant, data='cifar100')
