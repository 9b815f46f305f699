"""CIFAR-10 with what has helped since the paper: see docs/studies.md.

`--config=cifar10_modern:VARIANT`, with the variants of `cifar10`.
"""

import pathlib
import runpy

from mlf_jax.training import with_fields

_CIFAR10 = runpy.run_path(str(pathlib.Path(__file__).with_name('cifar10.py')))


def get_config(variant='ds20', data='cifar10'):
  return with_fields(
    _CIFAR10['get_config'](variant, data),
    {
      'unit.name': 'learned_mlf',
      'loss': 'tet',
      'augment.cutout': 16,
      'schedule.name': 'cosine',
      'schedule.warmup_epochs': 5.0,
      'optimizer.weight_decay': 5e-4,
    },
  )
