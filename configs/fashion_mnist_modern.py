"""`fashion_mnist` with additions of its relatives: see docs/studies.md.

`--config=fashion_mnist_modern:VARIANT`, with the variants of `fashion_mnist`.
"""

import pathlib
import runpy

from mlf_jax.training import with_fields

_FOLDER = pathlib.Path(__file__).parent
_PLAIN = runpy.run_path(str(_FOLDER / 'fashion_mnist.py'))


def get_config(variant='ds20'):
  return with_fields(
    _PLAIN['get_config'](variant),
    {
      'loss': 'tet',
      'model.normalization': 'tebn',
      # In trials of one epoch, on held-out images (docs/results.md).
      'augment.crop_padding': 0,
      'optimizer.name': 'adamw',
      'optimizer.learning_rate': 0.02,
      'optimizer.weight_decay': 0.02,
    },
  )
