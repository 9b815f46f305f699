"""Pictures of a report that show one run, or several side by side.

Every function takes groups of runs and returns pictures as HTML. What belongs
to one run is a picture for each group, on the same axes; lines of several runs
share a picture, in the colour of their group.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from mlf_jax.analysis import plots
from mlf_jax.analysis.early_exit import exit_curve
from mlf_jax.analysis.report_painter import Painter
from mlf_jax.analysis.report_summary import Group, labelled

_MOST_WRONG = 8
_COLUMNS = 4


def curves(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Loss and accuracy over training."""

  def draw(name, figure):
    ax = figure.subplots()
    for run, line in _lines(groups):
      plots.curves(run.metrics, name, ax, lw=1, ms=3, **line)
    if name == 'loss':
      ax.set_yscale('log')
    ax.legend()

  pictures = []
  for name in ('loss', 'accuracy'):
    values = _last_values(groups, name)
    pictures.append(
      painter.picture(
        f'curve_{name}',
        functools.partial(draw, name),
        f'{name.capitalize()} over training steps; at the end {values}.',
        f'{name.capitalize()} on training batches (line) and on the test '
        'samples (points).',
      )
    )
  return pictures


def _last_values(groups, name):
  texts = []
  for group in groups:
    for part in ('train', 'test'):
      values = [
        line[f'{part}/{name}']
        for line in group.first.metrics
        if line.get(f'{part}/{name}') is not None
      ]
      if values:
        texts.append(labelled(group, groups, f'{part} {values[-1]:.4f}'))
  return ', '.join(texts) or 'nothing'


def confusion(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Confusion matrices."""
  pictures = []
  for number, group in enumerate(groups, start=1):
    run = group.first
    labels, predictions = run.dataset.test.labels, run.predictions

    def draw(figure, run=run, labels=labels, predictions=predictions):
      plots.confusion(
        labels, predictions, run.dataset.num_classes, figure.subplots()
      )

    wrong = labels != predictions
    pairs, counts = np.unique(
      np.stack([labels, predictions])[:, wrong], axis=1, return_counts=True
    )
    worst = 'no mistakes'
    if counts.size:
      true, taken = pairs[:, counts.argmax()]
      worst = (
        f'the most frequent mistake, {counts.max()} times, is class {true} '
        f'taken for {taken}'
      )
    pictures.append(
      painter.picture(
        _name('confusion', number, groups),
        draw,
        f'Confusion matrix: {(~wrong).sum()} of {len(labels)} samples on the '
        f'diagonal; {worst}.',
        labelled(group, groups, 'numbers of test samples'),
        height=4.2,
      )
    )
  return pictures


def most_confidently_wrong(
  groups: Sequence[Group], painter: Painter
) -> list[str]:
  """The mistakes with the highest probability."""
  pictures = []
  for number, group in enumerate(groups, start=1):
    run = group.first
    test, predictions = run.dataset.test, run.predictions
    probability = np.asarray(jax.nn.softmax(run.mean_logits, -1)).max(-1)
    wrong = np.flatnonzero(predictions != test.labels)
    wrong = wrong[np.argsort(-probability[wrong], kind='stable')][:_MOST_WRONG]
    if not wrong.size:
      continue
    images = test.images[wrong]
    if images.ndim == 5:  # Of a recording the frame with the most events.
      most = images.sum((2, 3, 4), dtype=int).argmax(1)
      images = images[np.arange(len(images)), most]
    titles = [
      f'{test.labels[i]} as {predictions[i]}, {probability[i]:.0%}'
      for i in wrong
    ]

    def draw(figure, images=images, titles=titles):
      rows = -(-len(titles) // _COLUMNS)
      axes = figure.subplots(rows, _COLUMNS, squeeze=False)
      plots.samples(images, titles, axes.ravel())

    names = [f'{i}' if test.ids is None else str(test.ids[i]) for i in wrong]
    pictures.append(
      painter.picture(
        _name('wrong', number, groups),
        draw,
        'Test samples with the highest probability for a wrong class: '
        + '; '.join(titles),
        labelled(group, groups, f'test samples {", ".join(names)}'),
        height=1.4 * -(-len(wrong) // _COLUMNS),
      )
    )
  return pictures


def over_time(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Accuracy and decided samples after each timestep."""

  def draw(function, figure):
    ax = figure.subplots()
    time_steps = 1
    for run, line in _lines(groups):
      function(run, ax, **line)
      time_steps = max(time_steps, len(run.logits))
    ax.set_xlim(0.5, time_steps + 0.5)
    _legend(ax, groups)

  def accuracy(run, ax, **line):
    plots.accuracy_by_time(run.logits, run.dataset.test.labels, ax, **line)

  def latency(run, ax, **line):
    plots.latency(run.logits, ax, **line)
    ax.set_ylim(-0.03, 1.03)

  def early_exit(run, ax, **line):
    plots.early_exit(run.logits, run.dataset.test.labels, ax, **line)

  by_time, means, exits = [], [], []
  for group in groups:
    run = group.first
    right = plots.decisions(run.logits) == run.dataset.test.labels
    values = ', '.join(f'{share:.4f}' for share in right.mean(1))
    by_time.append(labelled(group, groups, values))
    at = plots.decided_at(run.logits)
    mean = (
      f'{at.mean():.2f} timesteps on average, {(at == 1).mean():.1%} after the '
      'first'
    )
    means.append(labelled(group, groups, mean))
    (at,) = exit_curve(run.logits, run.dataset.test.labels, (0.9,))
    mean = f'{at.accuracy:.4f} after {at.mean_time_steps:.2f} timesteps'
    exits.append(labelled(group, groups, mean))
  return [
    painter.picture(
      'accuracy_by_time',
      functools.partial(draw, accuracy),
      'Accuracy after each number of timesteps: ' + '; '.join(by_time),
      'Accuracy if the network stopped after so many timesteps.',
    ),
    painter.picture(
      'latency',
      functools.partial(draw, latency),
      'Share of samples with their final decision: ' + '; '.join(means),
      'Samples whose decision no longer changes: ' + '; '.join(means) + '.',
    ),
    painter.picture(
      'early_exit',
      functools.partial(draw, early_exit),
      'Accuracy and mean timesteps of early exits; at 0.9: ' + '; '.join(exits),
      'Accuracy if each sample stops once its class has a probability, the '
      'softmax of the mean logits so far. Points are probabilities from 0 to '
      '1; at 0.9: ' + '; '.join(exits) + '.',
    ),
  ]


def rates(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Firing rates of levels by depth."""
  # A silent network has an axis too.
  top = max(
    layer.firing_rate_by_level.max() or 0.01
    for group in groups
    for run in group.runs
    for layer in run.activity.values()
  )
  pictures = []
  for number, group in enumerate(groups, start=1):

    def draw(figure, group=group):
      ax = figure.subplots()
      for i, run in enumerate(group.runs):
        plots.rates(
          {n: a.firing_rate_by_level for n, a in run.activity.items()},
          ax,
          label='_{}' if i else 'level {}',
        )
      ax.set_ylim(-0.03 * top, 1.05 * top)
      ax.legend()

    layers = group.first.activity
    pictures.append(
      painter.picture(
        _name('rates', number, groups),
        draw,
        'Firing rate of each level by depth. All levels together: '
        + '; '.join(f'{n} {a.firing_rate:.3f}' for n, a in layers.items()),
        labelled(group, groups, 'firing rate of each level'),
        height=3.8,
      )
    )
  return pictures


def membranes(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Histograms of membrane potentials."""
  low = min(group.first.edges[0] for group in groups)
  high = max(group.first.edges[-1] for group in groups)
  top = max(
    (layer.membranes / layer.membranes.sum(1, keepdims=True))[:, 1:-1].max()
    for group in groups
    for name, layer in group.first.activity.items()
    if name in _three(group.first.activity)
  )
  pictures = []
  for number, group in enumerate(groups, start=1):
    run = group.first
    names = _three(run.activity)

    def draw(figure, run=run, names=names):
      axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
      for ax, name in zip(axes, names, strict=True):
        plots.membrane_histogram(
          run.activity[name].membranes, run.edges, *_windows(run), ax=ax
        )
        ax.set_title(name, loc='left', fontsize='medium')
        ax.set(xlim=(low, high), ylim=(0, 1.2 * top or 1))
        ax.label_outer()
      _legend_above(figure)

    pictures.append(
      painter.picture(
        _name('membranes', number, groups),
        draw,
        'Histograms of the membrane potentials in '
        + '; '.join(
          f'{name}, '
          + ', '.join(
            f'{share:.1%} of level {k + 1} in its window'
            for k, share in enumerate(run.activity[name].in_window_by_level)
          )
          for name in names
        ),
        labelled(group, groups, 'membrane potentials before the reset'),
        height=1.2 * len(names) + 0.2,
      )
    )
  return pictures


def dormant(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Dormant shares by depth; of one run those of its levels too."""

  def draw(figure):
    ax = figure.subplots()
    if len(groups) == 1:
      layers = groups[0].first.activity
      for k in range(next(iter(layers.values())).num_levels):
        plots.dormant(
          {n: 1 - a.in_window_by_level[k] for n, a in layers.items()},
          ax,
          label=f'level {k + 1}',
          color=f'C{k}',
          ls=':',
        )
    for run, line in _lines(groups):
      if len(groups) == 1:
        line |= {'label': 'whole unit', 'color': ax.xaxis.label.get_color()}
      plots.dormant(
        {n: a.dormant_share for n, a in run.activity.items()}, ax, **line
      )
    ax.legend()

  return [
    painter.picture(
      'dormant',
      draw,
      'Dormant share by depth. '
      + '; '.join(
        labelled(
          group,
          groups,
          ', '.join(
            f'{n} {a.dormant_share:.1%}'
            for n, a in group.first.activity.items()
          ),
        )
        for group in groups
      ),
      'Share of (unit, timestep) pairs outside the surrogate windows: of each '
      'level, and of all levels at once.'
      if len(groups) == 1
      else 'Dormant share of (unit, timestep) pairs.',
      height=3.8,
    )
  ]


def gradients(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Gradient norms by depth."""

  def draw(figure):
    ax = figure.subplots()
    for run, line in _lines(groups):
      plots.gradient_norms(run.gradient_norms, ax, **line)
    _legend(ax, groups)

  values = '; '.join(
    labelled(
      group,
      groups,
      ', '.join(f'{n} {v:.2g}' for n, v in group.first.gradient_norms.items()),
    )
    for group in groups
  )
  return [
    painter.picture(
      'gradients',
      draw,
      f'Gradient norm by depth. {values}',
      'Norm of the gradient of the weights.',
      height=3.8,
    )
  ]


def raster(groups: Sequence[Group], painter: Painter) -> list[str]:
  """Spikes of the first test sample."""
  pictures = []
  top = max(
    layer.num_levels
    for group in groups
    for layer in group.first.activity.values()
  )
  for number, group in enumerate(groups, start=1):
    run = group.first
    spikes = {
      name: of_layer.fired.sum(1) for name, of_layer in run.first_sample.items()
    }

    def draw(figure, spikes=spikes):
      plots.raster(spikes, top, ax=figure.subplots())

    total = sum(int(of_layer.sum()) for of_layer in spikes.values())
    pictures.append(
      painter.picture(
        _name('raster', number, groups),
        draw,
        f'Spike raster of the first test sample: {total:,} spikes in '
        f'{len(spikes)} layers and {run.config.model.time_steps} timesteps.',
        labelled(group, groups, 'spikes'),
        height=5.2,
      )
    )
  return pictures


def traces(
  groups: Sequence[Group], painter: Painter
) -> tuple[list[str], list[str]]:
  """Membrane potentials of busy and of typical units over time."""
  chosen = {
    (number, kind): _units(group.first, kind)
    for number, group in enumerate(groups, start=1)
    for kind in ('busiest', 'typical')
  }
  potentials = [u for units in chosen.values() for _, u, _ in units]
  low = min(u.min() for u in potentials)
  high = max(u.max() for u in potentials)
  margin = 0.05 * (high - low + 1e-9)
  longest = max(len(u) for u in potentials)
  pictures = {'busiest': [], 'typical': []}
  for (number, kind), units in chosen.items():
    group = groups[number - 1]

    def draw(figure, run=group.first, units=units):
      axes = figure.subplots(len(units), sharex=True, squeeze=False)[:, 0]
      for ax, (name, u, fired) in zip(axes, units, strict=True):
        plots.membrane_traces(u, fired, *_windows(run), ax=ax)
        ax.set_title(name, loc='left', fontsize='medium')
        ax.set(
          xlim=(0.5, longest + 0.5),
          ylim=(low - margin, high + margin),
          ylabel='potential',
        )
        ax.label_outer()
      _legend_above(figure)

    pictures[kind].append(
      painter.picture(
        _name(f'traces_{kind}', number, groups),
        draw,
        f'Membrane potential of the {kind} unit over time in '
        + '; '.join(
          f'{name}: between {u.min():.2f} and {u.max():.2f}, '
          f'{int(fired.sum())} spikes'
          for name, u, fired in units
        ),
        labelled(group, groups, f'{kind} units'),
        height=1.7 * len(units) + 0.4,
      )
    )
  return pictures['busiest'], pictures['typical']


def _units(run, kind):
  """Name, potentials and spikes [time, level] of a unit of three layers."""
  units = []
  for name in _three(run.first_sample):
    seen = run.first_sample[name]
    u, fired = (
      np.asarray(array).reshape((*array.shape[:2], -1))
      for array in (seen.membrane_potential, seen.fired)
    )
    highest = u.max((0, 1))
    if kind == 'busiest':
      unit = np.lexsort((highest, fired.sum((0, 1))))[-1]
    else:
      unit = np.argsort(highest)[len(highest) // 2]
    units.append((name, u[..., unit], fired[..., unit]))
  return units


def _lines(groups):
  """Runs with colour and label of their group; the label stands once."""
  for i, group in enumerate(groups):
    for j, run in enumerate(group.runs):
      label = f'_{j}' if j else group.label if len(groups) > 1 else ''
      yield run, {'color': f'C{i}', 'label': label}


def _legend(ax, groups):
  if len(groups) > 1:
    ax.legend()


def _legend_above(figure):
  """A legend of the levels, which would hide something inside of an axis."""
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside upper right', ncols=len(labels))


def _name(name, number, groups):
  """Name of a picture of one group."""
  return name if len(groups) == 1 else f'{name}_{number}'


def _three(layers):
  """Names of the first, a middle and the last layer."""
  names = [*layers]
  places = sorted({0, len(names) // 2, len(names) - 1})
  return [names[place] for place in places]


def _windows(run):
  """Thresholds and width of the surrogate windows, as far as known."""
  return getattr(run.unit, 'thresholds', ()), getattr(run.unit, 'width', 0.0)
