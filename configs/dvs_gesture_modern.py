"""DVS-Gesture with what has helped since the paper: see docs/studies.md.

Nothing is mirrored: some classes are the left or the right arm.
"""

import pathlib
import runpy

from mlf_jax.training import with_fields

_PAPER = runpy.run_path(str(pathlib.Path(__file__).with_name('dvs_gesture.py')))


def get_config():
  return with_fields(
    _PAPER['get_config'](),
    {
      'unit.name': 'learned_mlf',
      'loss': 'tet',
      'augment.translation': 3,
      'augment.rotation': 15.0,
      'augment.shear': 15.0,
      'augment.cutout': 8,
      'augment.mixup': 0.2,
      'schedule.name': 'cosine',
      'schedule.warmup_epochs': 5.0,
    },
  )
