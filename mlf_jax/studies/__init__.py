"""Studies: a grid of trainings with several seeds, as a table and a plot.

`python -m mlf_jax study NAME` runs the study of `configs/studies/NAME.py`.
"""

from mlf_jax.studies import measures
from mlf_jax.studies.declaration import Study

__all__ = ['Study', 'measures']
