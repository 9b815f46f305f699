"""`digits` with the additions that helped with few samples: docs/results.md."""

import pathlib
import runpy

from mlf_jax.training import with_fields

_PLAIN = runpy.run_path(str(pathlib.Path(__file__).with_name('digits.py')))


def get_config():
  return with_fields(
    _PLAIN['get_config'](),
    {'loss': 'tet', 'model.normalization': 'tebn'},
  )
