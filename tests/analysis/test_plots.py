"""The pictures show the numbers that they are given."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mlf_jax.analysis import plots
from mlf_jax.errors import UserError

matplotlib.use('agg')
random = np.random.default_rng(0)


@pytest.fixture
def ax():
  return Figure().subplots()


def points(line):
  """Finite points of a line."""
  pairs = np.array(line.get_data(), float).T
  return pairs[np.isfinite(pairs).all(1)].tolist()


def names(axis):
  return [label.get_text() for label in axis.get_ticklabels()]


def test_raster_shows_evenly_chosen_units_of_each_layer(ax):
  first = np.arange(4 * 6).reshape((4, 2, 3)) % 4
  spikes = {'first': first, 'second': np.full((4, 2), 2)}
  assert plots.raster(spikes, rows=6, ax=ax) is ax
  (image,) = ax.get_images()
  units = first.reshape((4, 6))
  # Three of six units, from the first to the last, and both of the others.
  expected = [units[:, 0], units[:, 2], units[:, 5], [2] * 4, [2] * 4]
  np.testing.assert_array_equal(image.get_array(), expected)
  assert image.get_clim() == (0, 3)
  assert names(ax.yaxis) == ['first', 'second']
  assert ax.get_yticks().tolist() == [1.5, 4]


def test_membrane_traces_mark_spikes_thresholds_and_windows(ax):
  u = np.array([[0.2, 0.2], [0.9, 0.9], [0.4, 2.0]])
  thresholds = (0.6, 1.6)
  plots.membrane_traces(u, u > thresholds, thresholds, 1.0, ax)
  filled = [
    (line.get_color(), line.get_ydata().tolist())
    for line in ax.get_lines()
    if line.get_linestyle() == 'None'
  ]
  assert filled == [('C0', [0.9]), ('C1', [2.0])]
  traces = [line for line in ax.get_lines() if len(line.get_xdata()) == 3]
  for k, line in enumerate(traces):
    np.testing.assert_array_equal(line.get_ydata(), u[:, k])
    np.testing.assert_array_equal(np.round(line.get_xdata()), [1, 2, 3])
  dashed = [x for x in ax.get_lines() if x.get_linestyle() == '--']
  assert [line.get_ydata()[0] for line in dashed] == [0.6, 1.6]
  bands = [(patch.get_y(), patch.get_height()) for patch in ax.patches]
  np.testing.assert_allclose(bands, [(0.1, 1), (1.1, 1)])


def test_membrane_histogram_is_a_share_and_says_what_lies_beyond(ax):
  counts = np.array([[1, 2, 1, 0], [4, 0, 0, 0]])
  plots.membrane_histogram(counts, [0.0, 0.5, 1.0], (0.6, 1.6), 1.0, ax)
  shown = [patch.get_data() for patch in ax.patches[:2]]
  for (values, edges, _), share in zip(shown, counts / 4, strict=True):
    np.testing.assert_array_equal(values, share[1:-1])
    np.testing.assert_array_equal(edges, [0, 0.5, 1])
  # Of both levels together five of eight; nothing above.
  assert [text.get_text() for text in ax.texts] == ['62% below']


def test_depth_goes_from_left_to_right_and_shortcuts_are_off_the_line(ax):
  rate = {
    'units1': [0.3, 0.1],
    'layer2_0/shortcut_units': [0.9, 0.8],
    'layer2_0/units1': [0.2, 0.0],
  }
  plots.rates(rate, ax)
  level_1, beside_1, level_2, beside_2 = ax.get_lines()
  assert points(level_1) == [[0, 0.3], [2, 0.2]]
  assert points(level_2) == [[0, 0.1], [2, 0]]
  assert points(beside_1) == [[1, 0.9]] and points(beside_2) == [[1, 0.8]]
  assert beside_1.get_linestyle() == 'None'
  assert names(ax.xaxis) == [*rate]
  labels = ax.get_legend_handles_labels()[1]
  assert labels == ['level 1', 'level 2']


def test_networks_are_compared_in_the_same_axes(ax):
  for label, share in (('K = 1', 0.6), ('K = 3', 0.5)):
    plots.dormant({'units1': share, 'units2': share / 2}, ax, label=label)
  assert ax.get_legend_handles_labels()[1] == ['K = 1', 'K = 3']
  drawn = [points(line) for line in ax.get_lines() if points(line)]
  assert drawn == [[[0, 0.6], [1, 0.3]], [[0, 0.5], [1, 0.25]]]
  colors = {to_rgba(line.get_color()) for line in ax.get_lines()}
  assert len(colors) == 2


def test_gradient_norms_are_logarithmic_and_zeros_leave_a_gap(ax):
  plots.gradient_norms({'a': 0.1, 'b': 0.0, 'c': 10.0}, ax)
  assert points(ax.get_lines()[0]) == [[0, 0.1], [2, 10]]
  assert ax.get_yscale() == 'log'


def test_all_zero_gradients_can_be_drawn(ax):
  plots.gradient_norms({'a': 0.0}, ax)
  ax.figure.draw_without_rendering()
  assert points(ax.get_lines()[0]) == []


def test_many_layers_have_few_names(ax):
  plots.dormant({f'units{i}': 0.5 for i in range(70)}, ax)
  assert names(ax.xaxis)[0] == 'units0' and 10 <= len(names(ax.xaxis)) <= 16


def test_confusion_counts_pairs_of_classes(ax):
  labels = np.array([0, 0, 0, 1, 2])
  plots.confusion(labels, np.array([0, 0, 2, 1, 2]), 4, ax)
  written = {t.get_position(): t.get_text() for t in ax.texts}
  assert written == {(0, 0): '2', (2, 0): '1', (1, 1): '1', (2, 2): '1'}
  share = ax.get_images()[0].get_array()
  np.testing.assert_allclose(share[0], [2 / 3, 0, 1 / 3, 0])
  # A class without samples.
  np.testing.assert_array_equal(share[3], 0)


@pytest.fixture
def logits():
  return random.standard_normal((5, 40, 3))


def test_accuracy_by_time_is_that_of_the_logits_so_far(ax, logits):
  labels = random.integers(0, 3, 40)
  plots.accuracy_by_time(logits, labels, ax)
  expected = [
    [t, np.mean(logits[:t].mean(0).argmax(-1) == labels)] for t in range(1, 6)
  ]
  np.testing.assert_allclose(points(ax.get_lines()[0]), expected)


def test_latency_is_the_time_after_which_the_decision_stays(ax, logits):
  decided = []
  for sample in range(40):
    path = [logits[:t, sample].sum(0).argmax() for t in range(1, 6)]
    at = next(t for t in range(1, 6) if len({*path[t - 1 :]}) == 1)
    decided.append(at)
  np.testing.assert_array_equal(plots.decided_at(logits), decided)
  assert len({*decided}) > 3
  plots.latency(logits, ax)
  expected = [[t, np.mean(np.array(decided) <= t)] for t in range(1, 6)]
  np.testing.assert_allclose(points(ax.get_lines()[0]), expected)


def test_curves_leave_out_what_a_line_lacks(ax):
  lines = [
    {'step': 5, 'train/loss': 2.0},
    {'step': 7, 'activity/units1/firing_rate': 0.2},
    {'step': 10, 'train/loss': None, 'test/loss': 1.5},
  ]
  plots.curves(lines, 'loss', ax, label='K = 1')
  train, test = ax.get_lines()
  assert points(train) == [[5, 2]] and points(test) == [[10, 1.5]]
  assert train.get_label() == 'K = 1, train'


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_samples_are_shown_as_colours(channels):
  axes = Figure().subplots(1, 3)
  images = random.integers(0, 9, (2, 4, 4, channels))
  plots.samples(images, ['a', 'b'], axes)
  assert axes[0].figure.axes == [*axes[:2]]
  for ax, title in zip(axes, 'ab', strict=False):
    shown = ax.get_images()[0].get_array()
    assert shown.shape == (4, 4, 3) and 0 <= shown.min() < shown.max() <= 1
    assert ax.get_title() == title


def test_new_axes_belong_to_pyplot():
  from matplotlib import pyplot

  ax = plots.dormant({'units1': 0.5})
  assert ax.figure is pyplot.gcf()
  pyplot.close(ax.figure)


def test_without_matplotlib_one_line_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r'pip install "mlf_jax\[plot\]"'):
    plots.dormant({'units1': 0.5})
