"""The picture of a unit shows what the unit does."""

import numpy as np

from mlf_jax import mlf
from mlf_jax.analysis import unit_plots
from mlf_jax.neuron import MLFParams


def test_mlf_unit_shows_windows_thresholds_and_spikes(tmp_path):
  x = np.array([0.5, 1.0, 2.0, 3.5, 0.1], np.float32)
  figure = unit_plots.mlf_unit(x, MLFParams((0.6, 1.6)))
  windows, potential, output = figure.axes
  lines = [line.get_xdata()[0] for line in windows.get_lines()]
  assert lines == [0.6, 1.6]
  shown = [bar.get_height() for bar in output.patches]
  np.testing.assert_array_equal(shown, mlf(x, (0.6, 1.6)))
  first = potential.get_lines()[0].get_ydata()
  # Level 1 fires at steps 2, 3 and 4 and starts from the reset after each.
  np.testing.assert_allclose(first, [0.5, 1.125, 2.0, 3.5, 0.1])
  figure.savefig(tmp_path / 'unit.png')
  assert (tmp_path / 'unit.png').read_bytes().startswith(b'\x89PNG')
