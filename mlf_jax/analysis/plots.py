"""Pictures of a network's activity and decisions, for a notebook or a report.

    from mlf_jax.analysis import plots
    plots.raster({'conv1': spikes[:, 0]})

Every function draws into the axes that it is given, or into a new figure of
`pyplot`, and returns the axes. To compare networks, call it once for each with
the same `ax` and another `label`. Colours are those of Matplotlib's settings.
"""

import typing
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from mlf_jax.analysis.early_exit import exit_curve
from mlf_jax.errors import UserError

if typing.TYPE_CHECKING:
  from matplotlib.axes import Axes

# Most names that fit below an axis; of more only some are written.
_MOST_TICKS = 16
# Most classes whose counts are written into a confusion matrix.
_MOST_COUNTS = 12
# Least share beyond the ends of a histogram that is worth a word.
_LEAST_BEYOND = 0.005


def require_matplotlib() -> None:
  """Raises `UserError`, which says how to install it, without Matplotlib."""
  try:
    import matplotlib  # noqa: F401
  except ImportError:
    raise UserError(
      'pictures need Matplotlib: pip install "mlf_jax[plot]"'
    ) from None


def _axes(ax):
  if ax is not None:
    return ax
  require_matplotlib()
  from matplotlib import pyplot

  return pyplot.subplots(layout='constrained')[1]


def raster(
  spikes: Mapping[str, Real[np.ndarray, 'time *shape']],
  num_levels: int | None = None,
  rows: int = 160,
  ax: 'Axes | None' = None,
) -> 'Axes':
  """Draws the spikes of one sample: units from top to bottom, time across.

  Args:
    spikes: number of levels that fire, by layer, from the first layer on.
    num_levels: levels of a unit, K, the end of the colours; by default the
      largest number of spikes.
    rows: units that are shown, evenly chosen, as many of each layer.
    ax: axes to draw into.
  """
  ax = _axes(ax)
  each = max(1, rows // len(spikes))
  chosen = {}
  for name, of_layer in spikes.items():
    units = np.asarray(of_layer).reshape((len(of_layer), -1))
    index = np.linspace(0, units.shape[1] - 1, min(each, units.shape[1]))
    chosen[name] = units[:, index.astype(int)].T
  image = np.concatenate([*chosen.values()])
  time_steps = image.shape[1]
  top = max(1, int(num_levels or image.max()))
  shown = ax.imshow(
    image,
    aspect='auto',
    interpolation='nearest',
    vmin=0,
    vmax=top,
    extent=(0.5, time_steps + 0.5, len(image), 0),
  )
  ends = np.cumsum([len(units) for units in chosen.values()])
  for end in ends[:-1]:
    ax.axhline(end, color=ax.xaxis.label.get_color(), lw=0.4)
  middles = ends - np.diff(ends, prepend=0) / 2
  ticks, names = _thinned(middles, [*chosen])
  ax.set_yticks(ticks, names)
  ax.tick_params('y', length=0)
  _time_axis(ax, time_steps)
  bar = ax.figure.colorbar(shown, ax=ax, label='levels that fire')
  bar.set_ticks(np.unique(np.linspace(0, top, 5).round()))
  return ax


def membrane_traces(
  membrane_potential: Float[np.ndarray, 'time level'],
  fired: Bool[np.ndarray, 'time level'],
  thresholds: Iterable[float] = (),
  width: float = 0.0,
  ax: 'Axes | None' = None,
) -> 'Axes':
  """Draws the membrane potential of each level of one unit over time.

  Args:
    membrane_potential: potentials before the reset.
    fired: whether a level fires; it then has a filled marker.
    thresholds: firing threshold of each level, a dashed line.
    width: width of the surrogate window around each threshold, a band; 0 for
      none.
    ax: axes to draw into.
  """
  ax = _axes(ax)
  potential, fired = np.asarray(membrane_potential), np.asarray(fired, bool)
  time = np.arange(1, len(potential) + 1)
  for k, (u, spikes) in enumerate(zip(potential.T, fired.T, strict=True)):
    # Beside each other: equal potentials do not hide each other.
    place = time + 0.12 * (k - (potential.shape[1] - 1) / 2)
    style = {'color': f'C{k}', 'ms': 4.5}
    ax.plot(place, u, 'o-', mfc='none', lw=1, **style)
    ax.plot(place[spikes], u[spikes], 'o', **style)
    ax.plot([], [], '-', lw=2, color=f'C{k}', label=f'level {k + 1}')
  _draw_windows(thresholds, width, ax.axhline, ax.axhspan)
  _time_axis(ax, len(time))
  ax.set_ylabel('membrane potential')
  return ax


def membrane_histogram(
  counts: Int[np.ndarray, 'level bin'],
  edges: Float[np.ndarray, 'edge'],
  thresholds: Iterable[float] = (),
  width: float = 0.0,
  ax: 'Axes | None' = None,
) -> 'Axes':
  """Draws how often a membrane potential occurs, for each level.

  Args:
    counts: `LayerActivity.membranes`: the first bin is what lies below the
      first edge, the last what lies above the last; their shares, over all
      levels, are written at the ends.
    edges: potentials between the bins.
    thresholds: firing threshold of each level, a dashed line.
    width: width of the surrogate window around each threshold, a band; 0 for
      none.
    ax: axes to draw into.
  """
  ax = _axes(ax)
  counts = np.asarray(counts)
  shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
  for k, share in enumerate(shares[:, 1:-1]):
    ax.stairs(share, edges, color=f'C{k}', label=f'level {k + 1}', lw=1.2)
  below, *_, above = shares.mean(0)
  for share, text, place in ((below, 'below', 0), (above, 'above', 1)):
    if share >= _LEAST_BEYOND:
      ax.annotate(
        f'{share:.0%} {text}',
        (place, 1),
        xycoords='axes fraction',
        ha='right' if place else 'left',
        va='top',
        fontsize='small',
      )
  _draw_windows(thresholds, width, ax.axvline, ax.axvspan)
  ax.set(xlabel='membrane potential', ylabel='share')
  return ax


def _draw_windows(thresholds, width, line, band):
  """Draws each level's threshold and surrogate window across an axis."""
  for k, threshold in enumerate(thresholds):
    line(threshold, color=f'C{k}', ls='--', lw=1)
    ends = threshold - width / 2, threshold + width / 2
    band(*ends, color=f'C{k}', alpha=0.13, lw=0)


def rates(
  rate: Mapping[str, Float[np.ndarray, 'level']],
  ax: 'Axes | None' = None,
  label: str = 'level {}',
  **line,
) -> 'Axes':
  """Draws the firing rate of each level, from the first layer to the last.

  Args:
    rate: spikes per unit and timestep, 0 to 1, of each level, by layer.
    ax: axes to draw into.
    label: label of a level's line; `{}` is the level.
    **line: properties of the lines, such as `alpha`.
  """
  ax = _axes(ax)
  for k in range(max(map(len, rate.values()))):
    _plot_by_depth(
      ax,
      {name: of_layer[k] for name, of_layer in rate.items()},
      **{'color': f'C{k}', 'label': label.format(k + 1), **line},
    )
  ax.set_ylabel('spikes per unit and timestep')
  return ax


def dormant(
  share: Mapping[str, float], ax: 'Axes | None' = None, **line
) -> 'Axes':
  """Draws the share of dormant units, from the first layer to the last.

  Args:
    share: share of (unit, timestep) pairs in which no level's potential is in
      its surrogate window, 0 to 1, by layer.
    ax: axes to draw into.
    **line: properties of the line, such as `label`.
  """
  ax = _axes(ax)
  _plot_by_depth(ax, share, **line)
  ax.set(ylabel='share that is dormant', ylim=(-0.03, 1.03))
  return ax


def gradient_norms(
  norm: Mapping[str, float], ax: 'Axes | None' = None, **line
) -> 'Axes':
  """Draws the gradient norm from the first layer to the last, logarithmic.

  Args:
    norm: norm of the loss's gradient, by layer; zeros leave a gap.
    ax: axes to draw into.
    **line: properties of the line, such as `label`.
  """
  ax = _axes(ax)
  positive = {
    name: value if value > 0 else np.nan for name, value in norm.items()
  }
  _plot_by_depth(ax, positive, **line)
  if np.isfinite([*positive.values()]).any():
    ax.set_yscale('log')
  ax.set_ylabel('norm of the gradient')
  return ax


def confusion(
  labels: Int[np.ndarray, 'sample'],
  predictions: Int[np.ndarray, 'sample'],
  num_classes: int,
  ax: 'Axes | None' = None,
) -> 'Axes':
  """Draws how often each class is taken for each other one.

  The colour is the share of a row, which holds the samples of one class. Up to
  12 classes the numbers of samples are written into the cells.
  """
  ax = _axes(ax)
  counts = np.zeros((num_classes, num_classes), int)
  np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
  share = counts / np.maximum(1, counts.sum(1, keepdims=True))
  image = ax.imshow(share, vmin=0, vmax=1)
  if num_classes <= _MOST_COUNTS:
    for row, column in np.argwhere(counts):
      color = image.cmap(image.norm(share[row, column]))[:3]
      # Black or white, whichever is further from the cell's brightness.
      text = 'k' if np.dot(color, (0.299, 0.587, 0.114)) > 0.5 else 'w'
      ax.text(
        *(column, row, counts[row, column]),
        color=text,
        ha='center',
        va='center',
        fontsize='small',
      )
    ax.set(xticks=range(num_classes), yticks=range(num_classes))
  ax.set(xlabel='predicted class', ylabel='true class')
  return ax


def accuracy_by_time(
  logits: Float[np.ndarray, 'time sample classes'],
  labels: Int[np.ndarray, 'sample'],
  ax: 'Axes | None' = None,
  **line,
) -> 'Axes':
  """Draws the accuracy if the network stopped after each timestep.

  Args:
    logits: logits of every timestep, of `model.apply(..., every_timestep=True)`
      for instance; a decision is their mean so far.
    labels: class of each sample.
    ax: axes to draw into.
    **line: properties of the line, such as `label`.
  """
  ax = _axes(ax)
  accuracy = (decisions(logits) == np.asarray(labels)).mean(1)
  time = np.arange(1, len(accuracy) + 1)
  ax.plot(time, accuracy, **{'marker': 'o', 'ms': 4, **line})
  _time_axis(ax, len(time))
  ax.set(xlabel='timesteps', ylabel='accuracy')
  return ax


def latency(
  logits: Float[np.ndarray, 'time sample classes'],
  ax: 'Axes | None' = None,
  **line,
) -> 'Axes':
  """Draws how many samples have got their final decision by each timestep.

  Args:
    logits: as in `accuracy_by_time`.
    ax: axes to draw into.
    **line: properties of the line, such as `label`.
  """
  ax = _axes(ax)
  time = np.arange(1, len(logits) + 1)
  share = (decided_at(logits)[:, None] <= time).mean(0)
  ax.plot(time, share, **{'marker': 'o', 'ms': 4, **line})
  _time_axis(ax, len(time))
  ax.set(ylabel='share of samples decided')
  return ax


def early_exit(
  logits: Float[np.ndarray, 'time sample classes'],
  labels: Int[np.ndarray, 'sample'],
  ax: 'Axes | None' = None,
  **line,
) -> 'Axes':
  """Draws the accuracy over the mean timesteps of samples that stop early.

  Args:
    logits: as in `accuracy_by_time`.
    labels: class of each sample.
    ax: axes to draw into.
    **line: properties of the line, such as `label`.
  """
  ax = _axes(ax)
  _, time, accuracy = zip(*exit_curve(logits, labels), strict=True)
  ax.plot(time, accuracy, **{'marker': 'o', 'ms': 4, **line})
  _time_axis(ax, len(logits))
  ax.set(xlabel='mean timesteps', ylabel='accuracy')
  return ax


def decisions(
  logits: Float[np.ndarray, 'time sample classes'],
) -> Int[np.ndarray, 'time sample']:
  """Class that the logits so far decide for, after each timestep."""
  return np.cumsum(np.asarray(logits, np.float64), 0).argmax(-1)


def decided_at(
  logits: Float[np.ndarray, 'time sample classes'],
) -> Int[np.ndarray, 'sample']:
  """First timestep, from 1 on, after which the decision stays the same."""
  decision = decisions(logits)
  differs = decision != decision[-1]
  # One more than the last timestep at which the decision was another.
  return (differs * np.arange(1, len(differs) + 1)[:, None]).max(0) + 1


def curves(
  lines: Iterable[Mapping[str, float]],
  name: str = 'loss',
  ax: 'Axes | None' = None,
  label: str = '',
  **line,
) -> 'Axes':
  """Draws a metric of a run over its training steps.

  Args:
    lines: lines of `metrics.jsonl`; a metric that is absent or None is left
      out.
    name: 'loss' or 'accuracy': `train/NAME` is a line, and `test/NAME` and
      `validation/NAME`, if it is there, have markers.
    ax: axes to draw into.
    label: name of the run.
    **line: properties of all lines, such as `color`.
  """
  ax = _axes(ax)
  lines = [*lines]
  styles = {
    'train': {'ls': '-', 'alpha': 0.7},
    'validation': {'marker': 's', 'ls': '--'},
    'test': {'marker': 'o'},
  }
  for part, style in styles.items():
    points = [
      (each['step'], each[f'{part}/{name}'])
      for each in lines
      if each.get(f'{part}/{name}') is not None
    ]
    if points:
      text = f'{label}, {part}' if label else part
      ax.plot(*np.array(points).T, label=text, **style | line)
  ax.set(xlabel='training step', ylabel=name)
  return ax


def samples(
  images: Iterable[Real[np.ndarray, 'height width channel']],
  titles: Iterable[str],
  axes: 'Iterable[Axes]',
) -> None:
  """Draws images beside each other, each into axes of its own.

  Args:
    images: grey (1 channel), red, green and blue (3), or counts of darker and
      brighter events (2); of other channels the mean. Each is scaled to its
      own smallest and largest value.
    titles: text above each image.
    axes: axes, at least as many; those left over are removed.
  """
  axes = iter(axes)
  for image, title, ax in zip(images, titles, axes, strict=False):
    ax.imshow(_as_colors(np.asarray(image, float)), interpolation='nearest')
    ax.set_title(title, fontsize='medium')
    ax.set(xticks=[], yticks=[])
  for ax in axes:
    ax.remove()


def _as_colors(image):
  """Image [height, width, 3], 0 to 1."""
  low, high = image.min(), image.max()
  channels = image.shape[-1]
  if channels == 2:
    from mlf_jax.analysis.event_plots import as_colors

    return as_colors(image)
  image = (image - low) / max(high - low, 1e-9)
  if channels != 3:
    image = image.mean(-1, keepdims=True).repeat(3, -1)
  return image


def _time_axis(ax, time_steps):
  """Whole timesteps, at most 10 of them."""
  step = -(-time_steps // 10)
  ax.set_xticks(range(step, time_steps + 1, step))
  ax.set(xlim=(0.5, time_steps + 0.5), xlabel='timestep')


def _plot_by_depth(ax, values, **line):
  """Draws a value of each layer; projections of shortcuts are off the line."""
  names = [*values]
  style = {'marker': 'o', 'ms': 4, **line}
  shortcuts = [i for i, name in enumerate(names) if 'shortcut' in name]
  path = [i for i in range(len(names)) if i not in shortcuts]
  values = np.array([*values.values()], float)
  (drawn,) = ax.plot(path, values[path], **style)
  beside = {'color': drawn.get_color(), 'label': None, 'ls': '', 'mfc': 'none'}
  ax.plot(shortcuts, values[shortcuts], **style | beside)
  ax.set_xticks(*_thinned(range(len(names)), names), rotation=90)
  ax.set_xlim(-0.5, len(names) - 0.5)


def _thinned(places, names):
  """Evenly chosen places and names, as many as fit."""
  step = -(-len(names) // _MOST_TICKS)
  return [*places][::step], names[::step]
