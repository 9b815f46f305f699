"""The 60,000 + 10,000 handwritten digits of MNIST.

`--config=mnist:VARIANT`, with the variants of `fashion_mnist`.
"""

import pathlib
import runpy

_FASHION = runpy.run_path(
  str(pathlib.Path(__file__).with_name('fashion_mnist.py'))
)


def get_config(variant='ds20'):
  return _FASHION['get_config'](variant, data='mnist')
