"""CIFAR10-DVS with what has helped since the paper: see docs/studies.md."""

import pathlib
import runpy

from mlf_jax.training import with_fields

_PAPER = runpy.run_path(str(pathlib.Path(__file__).with_name('cifar10_dvs.py')))


def get_config():
  return with_fields(
    _PAPER['get_config'](),
    {
      'unit.name': 'learned_mlf',
      'loss': 'tet',
      'augment.flip': True,
      'augment.translation': 5,
      'augment.rotation': 15.0,
      'augment.shear': 15.0,
      'augment.cutout': 8,
      'augment.mixup': 0.2,
      'schedule.name': 'cosine',
      'schedule.warmup_epochs': 5.0,
    },
  )
