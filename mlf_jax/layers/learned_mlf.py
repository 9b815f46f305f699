"""MLF units that learn thresholds, decays and initial membrane potentials."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax.errors import UserError
from mlf_jax.layers.integrating_unit import (
  IntegratingUnit,
  above_and_near,
  filled,
  first_decay_setting,
  logit,
  setting,
  surrogate_setting,
)
from mlf_jax.layers.spiking_units import UNITS
from mlf_jax.neuron.surrogate import check_window, spike


@UNITS.register('learned_mlf')
@dataclasses.dataclass(frozen=True)
class LearnedMLF(IntegratingUnit):
  """MLF unit that learns thresholds, decay and initial membrane potential.

  The learned numbers are those of a layer. Distances between neighbouring
  thresholds, and from 0 to the first, are exponentials, so that thresholds stay
  positive and in order; decays are sigmoids. The surrogate window of a level
  stays centred on its threshold.

  Source of the unit: Feng et al., IJCAI 2022; of learned decays, Fang et al.,
  ICCV 2021; of learned thresholds, Wang et al., "LTMD: Learning Improvement of
  Spiking Neural Networks with Learnable Thresholding Neurons and Moderate
  Dropout", NeurIPS 2022.
  """

  thresholds: tuple[float, ...] = setting(
    (0.6, 1.6, 2.6),
    'firing threshold of each level at the start of training, increasing; the '
    'first scales the normalisation',
    above=0,
  )
  decay: float = first_decay_setting(0.25)
  learn_thresholds: bool = setting(True, 'learn the thresholds')
  learn_decay: str = setting(
    'level',
    'learn one decay per level or per layer, or none',
    choices=('level', 'layer', 'none'),
  )
  learn_start: bool = setting(
    False, 'learn the membrane potential before the first timestep'
  )
  width: float = setting(
    1.0, 'width of the surrogate window around each threshold', above=0
  )
  surrogate: str = surrogate_setting()

  def __post_init__(self):
    """Validates the values."""
    thresholds = tuple(map(float, self.thresholds))
    object.__setattr__(self, 'thresholds', thresholds)
    super().__post_init__()
    check_window(self.width, self.surrogate)
    if not thresholds or np.any(np.diff(thresholds) <= 0):
      raise UserError(
        f'LearnedMLF.thresholds must be strictly increasing, got {thresholds}'
      )

  @property
  def num_levels(self):
    """Number of levels K."""
    return len(self.thresholds)

  @property
  def norm_threshold(self):
    """The first threshold at the start of training."""
    return self.thresholds[0]

  def learned(self, shape):
    """`log_gaps`, `decay_logit` and `start`, those that the fields turn on."""
    del shape
    learned = {}
    if self.learn_thresholds:
      gaps = np.diff(self.thresholds, prepend=0)
      learned['log_gaps'] = filled(np.log(gaps))
    if self.learn_decay != 'none':
      count = self.num_levels if self.learn_decay == 'level' else 1
      learned['decay_logit'] = filled(np.full(count, logit(self.decay)))
    if self.learn_start:
      learned['start'] = filled(np.zeros(self.num_levels))
    return learned

  def output_range(self, input_range=None):
    """From no level fired to all of them."""
    del input_range
    return 0, self.num_levels

  def values(self, parameters):
    """Threshold and decay of each level."""
    thresholds, decays = self.thresholds, [self.decay] * self.num_levels
    if self.learn_thresholds:
      thresholds = jnp.cumsum(jnp.exp(parameters['log_gaps']))
    if self.learn_decay != 'none':
      learned = jax.nn.sigmoid(parameters['decay_logit'])
      decays = jnp.broadcast_to(learned, self.num_levels)
    return list(thresholds), list(decays)

  def init_state(self, parameters, shape, dtype):
    """Membrane potentials at rest, or the learned ones."""
    state = super().init_state(parameters, shape, dtype)
    if not self.learn_start:
      return state
    start = parameters['start'].astype(dtype)
    return state + start.reshape((-1,) + (1,) * len(shape))

  def fire_and_reset(self, values, u):
    """Each level fires above its threshold and is reset to 0."""
    left, spikes = [], 0
    for v, decay, u_k in zip(*values, u, strict=True):
      fired = spike(u_k, v, self.width, self.surrogate)
      left.append(decay * u_k * (1 - fired))
      spikes += fired
    return left, spikes

  def fired_and_in_window(self, values, u):
    """Above the thresholds; within half a width of them."""
    lead = tuple(range(u.ndim - 1))
    thresholds = jnp.expand_dims(jnp.stack(values[0]), lead)
    return above_and_near(u - thresholds, self.width)
