"""Pictures; needs matplotlib, `pip install "mlf_jax[plot]"`."""

import numpy as np
from jaxtyping import Array, Float

from mlf_jax import neuron
from mlf_jax.errors import UserError, require_axes
from mlf_jax.neuron import surrogate

try:
  from matplotlib.figure import Figure
except ModuleNotFoundError:
  raise UserError(
    'pictures need matplotlib: pip install "mlf_jax[plot]"'
  ) from None


def mlf_unit(
  x: Float[Array, 'time'], params: neuron.MLFParams | None = None
) -> Figure:
  """Draws levels and surrogate windows of one MLF unit.

  Args:
    x: input current of the unit, [time].
    params: parameters of the unit; those of the paper by default.

  Returns:
    A figure. Left, over the membrane potential: each level's threshold and the
    window in which gradient flows. Right, over time: each level's membrane
    potential with its threshold, and below the unit's output.
  """
  x = np.asarray(x, np.float32)
  require_axes('time', x=x)
  params = params or neuron.MLFParams()
  potentials, spikes = _simulate(params, x)
  thresholds = np.asarray(params.thresholds)
  time = np.arange(1, len(spikes) + 1)
  colors = [f'C{k}' for k in range(params.num_levels)]

  figure = Figure(figsize=(9, 3.6), layout='constrained')
  axes = figure.subplot_mosaic(
    [['windows', 'potential'], ['windows', 'output']],
    width_ratios=(1, 1.6),
    height_ratios=(2.2, 1),
  )

  span = np.linspace(
    min(0, thresholds[0] - params.width),
    thresholds[-1] + params.width,
    1001,
    dtype=np.float32,
  )
  for k, (threshold, color) in enumerate(zip(thresholds, colors, strict=True)):
    window = surrogate.derivative(
      span - np.float32(threshold), params.width, params.surrogate
    )
    axes['windows'].fill_between(span, window, color=color, alpha=0.35)
    axes['windows'].axvline(threshold, color=color, linestyle='--')
    axes['potential'].plot(
      time, potentials[:, k], 'o-', color=color, label=f'level {k + 1}', ms=4
    )
    axes['potential'].axhline(threshold, color=color, linestyle='--', lw=1)
  axes['windows'].set(
    xlabel='membrane potential u',
    ylabel='surrogate derivative h(u)',
    title='thresholds and windows',
  )
  axes['potential'].set(ylabel='u, before the reset', xticklabels=[])
  axes['potential'].set_title('one unit over time')
  axes['potential'].legend(loc='upper right', fontsize='small', ncols=3)
  low, high = axes['potential'].get_ylim()
  axes['potential'].set_ylim(low, high + 0.2 * (high - low))
  axes['output'].bar(time, spikes, width=0.3, color='k')
  axes['output'].set(
    xlabel='timestep',
    ylabel='output',
    yticks=range(params.num_levels + 1),
    xlim=axes['potential'].get_xlim(),
  )
  return figure


def _simulate(params, x):
  """Membrane potentials [time, level] and output [time] of one unit."""
  state = neuron.init_state(params, ())
  potentials, spikes = [], []
  for x_t in np.asarray(x, np.float32):
    state, spikes_t = neuron.step(params, state, x_t)
    potentials.append(state.membrane_potential)
    spikes.append(spikes_t)
  return np.stack(potentials), np.stack(spikes)
