"""Pictures of a recording from events to spikes; needs matplotlib."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mlf_jax.data.events import Events, FrameSpec
from mlf_jax.errors import UserError, require_axes
from mlf_jax.layers import SpikingUnits
from mlf_jax.models import SpikingResNet

try:
  from matplotlib import colormaps
  from matplotlib.cm import ScalarMappable
  from matplotlib.colors import BoundaryNorm, to_rgb
  from matplotlib.figure import Figure
except ModuleNotFoundError:
  raise UserError(
    'pictures need matplotlib: pip install "mlf_jax[plot]"'
  ) from None

# Colours of darker and brighter; the colour-blind can tell them apart too.
_COLORS = ('#2166ac', '#d6604d')
# Most events shown: more merge into a block of colour.
_MOST_EVENTS = 4000
# Distance by which the last column is drawn to the right of the first and above
# it, as shares of a timestep and of the height of the sensor.
_DEPTH = (0.5, 0.3)
_GAP = 0.08


def recording(
  events: Events,
  spec: FrameSpec,
  spikes: Float[np.ndarray, 'time height width channel'],
  num_levels: int,
  channels: Sequence[int] | None = None,
  layer: str = 'first layer',
) -> Figure:
  """Draws a recording as events, as frames and as spikes of a first layer.

  Args:
    events: the recording; at most 4,000 events are drawn, evenly chosen.
    spec: specification of the frames.
    spikes: number of levels that fire, 0 to `num_levels`, such as those of
      `first_spikes`; one timestep per frame.
    num_levels: levels of a unit, K.
    channels: channels of the spikes that are shown; by default the first
      four, or all if there are fewer.
    layer: name of the layer in the picture.

  Returns:
    A figure. From top to bottom: the events in space and time, the frames, and
    the spikes of some channels, all from left to right in time.

  Raises:
    UserError: there are no events, or the spikes are not those of the frames.
  """
  require_axes('time height width channel', spikes=spikes)
  if len(spikes) != spec.time_steps:
    raise UserError(
      f'spikes have {len(spikes)} timesteps, but there are {spec.time_steps} '
      'frames'
    )
  if channels is None:
    channels = range(min(4, spikes.shape[-1]))
  for channel in channels:
    if not 0 <= channel < spikes.shape[-1]:
      raise UserError(
        f'channels names {channel}, but spikes have the channels 0 to '
        f'{spikes.shape[-1] - 1}'
      )
  if not len(events):
    raise UserError('a recording without events cannot be drawn')
  rows = 1 + len(channels)
  # In inches; a strip is as high as a timestep is wide.
  left, bottom, width = 0.9, 0.5, 7.2
  cell = width / (spec.time_steps + _DEPTH[0])
  top = bottom + rows * cell
  size = np.array([9, top + 2.8])
  figure = Figure(figsize=size)

  def add(left, bottom, width, height):
    corner, extent = (left, bottom) / size, (width, height) / size
    return figure.add_axes((*corner, *extent))

  _draw_events(add(left, top + 0.35, width, 2.4), events, spec)
  axes = [add(left, top - (i + 1) * cell, width, cell) for i in range(rows)]
  _draw_strip(axes[0], as_colors(spec.frames(events)), 'frames')
  norm = BoundaryNorm(np.arange(num_levels + 2) - 0.5, num_levels + 1)
  colors = colormaps['Purples'].resampled(num_levels + 1)
  for ax, channel in zip(axes[1:], channels, strict=True):
    image = colors(norm(spikes[..., channel]))[..., :3]
    _draw_strip(ax, image, f'channel {channel}')
  axes[-1].set_xticks(
    np.arange(spec.time_steps) + 0.5, range(1, spec.time_steps + 1)
  )
  axes[-1].set_xlabel('timestep')
  figure.colorbar(
    ScalarMappable(norm, colors),
    cax=add(8.2, bottom, 0.14, (rows - 1) * cell - 0.1),
    ticks=range(num_levels + 1),
    label=f'levels that fire, {layer}',
  )
  return figure


def _draw_events(ax, events, spec):
  """Draws events in an oblique view whose time axis is that of the strips."""
  chosen = np.arange(len(events))
  if len(events) > _MOST_EVENTS:
    chosen = np.linspace(0, len(events) - 1, _MOST_EVENTS).astype(int)
  first = int(events.t[0])
  # Length of a timestep in microseconds.
  step = spec.window_us or (int(events.t[-1]) - first + 1) / spec.time_steps
  height, width = events.sensor_size

  def project(time, column, row):
    depth = column / max(1, width - 1)
    return time + _DEPTH[0] * depth, row - _DEPTH[1] * height * depth

  time = (events.t[chosen] - first) / step
  place = project(time, events.x[chosen], events.y[chosen].astype(float))
  for polarity, name in enumerate(('darker', 'brighter')):
    of = (events.p[chosen] == polarity) & (time < spec.time_steps)
    ax.scatter(
      *(c[of] for c in place), s=4, c=_COLORS[polarity], lw=0, label=name
    )
  # The sensor when the first timestep begins and when the last one ends.
  columns = np.array([0, width - 1, width - 1, 0, 0])
  rows = np.array([0, 0, height - 1, height - 1, 0])
  corners = [project(end, columns, rows) for end in (0, spec.time_steps)]
  for outline in corners:
    ax.plot(*outline, color='0.6', lw=0.8)
  for (x_0, x_1), (y_0, y_1) in np.transpose(corners):
    ax.plot((x_0, x_1), (y_0, y_1), color='0.6', lw=0.5, ls=':')
  ticks = np.arange(spec.time_steps + 1)
  ax.set_xticks(ticks, [f'{tick * step / 1000:g}' for tick in ticks])
  ax.set(
    xlim=(0, spec.time_steps + _DEPTH[0]),
    ylim=(height - 0.5, -_DEPTH[1] * height - 2),
    yticks=(0, height - 1),
    ylabel='row',
  )
  ax.spines[['top', 'right', 'left']].set_visible(False)
  ax.annotate(
    'ms',
    (spec.time_steps + 0.3, 0),
    (0, -ax.xaxis.get_tick_padding() - 4),
    xycoords=('data', 'axes fraction'),
    textcoords='offset points',
    va='top',
  )
  ax.legend(
    loc='upper right', fontsize='small', markerscale=2.5, ncols=2, frameon=False
  )


def as_colors(frames):
  """Frames as RGB images: white without events, darker with more."""
  ink = 1 - np.array([to_rgb(color) for color in _COLORS])
  return np.clip(1 - np.sqrt(frames / max(1, frames.max())) @ ink, 0, 1)


def _draw_strip(ax, images, label):
  """Draws images [time, height, width, 3] side by side, each 1 wide."""
  for i, image in enumerate(images):
    extent = (i + _GAP / 2, i + 1 - _GAP / 2, _GAP / 2, 1 - _GAP / 2)
    ax.imshow(image, extent=extent, interpolation='nearest')
    left, right, bottom, top = extent
    ax.plot(
      [left, right, right, left, left],
      [bottom, bottom, top, top, bottom],
      color='0.6',
      lw=0.8,
      clip_on=False,
    )
  ax.set(xlim=(0, len(images) + _DEPTH[0]), ylim=(0, 1))
  ax.set(xticks=[], yticks=[])
  ax.set_aspect('auto')
  ax.spines[:].set_visible(False)
  ax.set_ylabel(label, rotation=0, ha='right', va='center')


def first_spikes(
  model: SpikingResNet,
  variables: Mapping,
  frames: UInt8[np.ndarray, 'batch time height width 2'],
  train: bool = False,
) -> Float[Array, 'batch time height_out width_out channel']:
  """Spikes of a network's first units; `jax.jit` leaves out the other layers.

  Args:
    model: the network.
    variables: its `params` and `batch_stats`.
    frames: frames of recordings, normalised if need be.
    train: whether to normalise with the statistics of these recordings, as is
      necessary in a network that was never trained.

  Returns:
    The number of levels that fire, 0 to K.
  """
  _, variables = model.apply(
    variables,
    jnp.asarray(frames),
    train=train,
    capture_intermediates=lambda module, _: (
      isinstance(module, SpikingUnits) and len(module.path) == 1
    ),
    mutable=['intermediates', 'batch_stats'],
  )
  (spikes,) = variables['intermediates']['units1']['__call__']
  # Time is folded into batch, time first.
  spikes = spikes.reshape((model.time_steps, -1, *spikes.shape[1:]))
  return spikes.swapaxes(0, 1)
