"""`moving_digits` with the additions that helped with few samples.

docs/results.md has the comparison.
"""

import pathlib
import runpy

from mlf_jax.training import with_fields

_FOLDER = pathlib.Path(__file__).parent
_PLAIN = runpy.run_path(str(_FOLDER / 'moving_digits.py'))


def get_config():
  return with_fields(
    _PLAIN['get_config'](),
    {'loss': 'tet', 'model.normalization': 'tebn'},
  )
