"""Looks inside trained networks: reports, costs, and pictures.

analysis.report('runs/digits')  # writes runs/digits/report.html
run = analysis.inspect_run('runs/digits')
rates = {path: layer.firing_rate for path, layer in run.activity.items()}

Pictures need Matplotlib: `pip install "mlf_jax[plot]"`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # For editors and the reference.
  from mlf_jax.analysis.inspection import inspect_run
  from mlf_jax.analysis.run_report import report

# Imported at first use: a report needs the modules of training, which take
# seconds, and pictures need Matplotlib.
_LAZY = {'inspect_run': 'inspection', 'report': 'run_report'}

__all__ = ['inspect_run', 'report']


def __getattr__(name: str):
  """Imports the module that defines a name, at first use."""
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)


def __dir__() -> list[str]:
  """Public names, those that are not imported yet among them."""
  return __all__
