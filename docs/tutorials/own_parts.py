# %% [markdown]
# # A unit, a loss and a block of your own
#
# Every part of a network is registered under a name, and a configuration names
# it. Here are three, in one small training.
#
# [This page as a notebook](own_parts.ipynb)

# %%
import dataclasses
import tempfile

import flax.linen as nn
import jax.numpy as jnp

from mlf_jax import training
from mlf_jax.layers import UNITS, SpikingUnit
from mlf_jax.models import BLOCKS, ResidualBlock
from mlf_jax.neuron import surrogate
from mlf_jax.training import LOSSES, Loss

# %% [markdown]
# ## A spiking unit
#
# A frozen dataclass of plain numbers. `init_state` and `step` are enough to
# train; looking inside (`activity.measure`) needs a method `observe` too. The
# fields become fields of the configuration. `parameters` are values that the
# unit learns, here none. `surrogate.spike` has the derivative of its window;
# another one is a function of your own with `jax.custom_jvp` in its place. This
# unit adapts: each spike raises its threshold for a while.


# %%
@UNITS.register('adaptive')
@dataclasses.dataclass(frozen=True)
class Adaptive(SpikingUnit):
  """Leaky unit whose threshold rises with each spike and falls back."""

  decay: float = dataclasses.field(
    default=0.5, metadata={'help': 'decay per timestep', 'low': 0, 'high': 1}
  )
  rise: float = dataclasses.field(
    default=0.2, metadata={'help': 'rise of the threshold', 'low': 0}
  )

  def init_state(self, parameters, shape, dtype):
    return {'u': jnp.zeros(shape, dtype), 'threshold': jnp.ones(shape, dtype)}

  def step(self, parameters, state, x_t):
    u = self.decay * state['u'] + x_t
    spikes = surrogate.spike(u, state['threshold'])
    threshold = 1 + 0.5 * (state['threshold'] - 1) + self.rise * spikes
    return {'u': u * (1 - spikes), 'threshold': threshold}, spikes

  def output_range(self, input_range=None):
    return 0, 1


# %% [markdown]
# ## A loss
#
# A function of logits and soft labels that returns one value per sample.


# %%
def squared_error(logits, soft_labels):
  return jnp.square(logits - soft_labels).sum(-1)


LOSSES['squared_error'] = Loss(squared_error)

# %% [markdown]
# ## A residual block
#
# `make` makes layers with the attributes of the network. This block has one
# convolution.


# %%
@BLOCKS.register('single')
class SingleBlock(ResidualBlock):
  """One convolution; its units fire before the addition."""

  @nn.compact
  def __call__(self, x, train):
    make = self.make
    x = make.mode.block_input(x, self.input_range)
    shortcut = self.shortcut_of(x, train)
    y = make.conv(self.features, 3, self.stride, name='conv')(x)
    y = make.normalized_units(make.norm(name='bn'), y, train)
    return y.astype(shortcut.dtype) + shortcut


# %% [markdown]
# ## All three in a run

# %%
config = training.default_config(data='digits', unit='adaptive')
config.model.depth, config.model.widths = 8, (8, 16, 32)
config.model.residual = 'single'
config.loss = 'squared_error'
config.unit.rise = 0.1
config.augment.crop_padding = 1
config.num_epochs = 12
config.schedule.name = 'cosine'
result = training.train(config, workdir=tempfile.mkdtemp())
print(f'test accuracy {result["test/accuracy"]:.3f}')

# %% [markdown]
# In a configuration file the same works from the command line: `python train.py
# --config=mine.py`, and `python -m mlf_jax evaluate --workdir DIR
# --config=mine.py` for the trained network. A part that cannot work is refused
# with one line:

# %%
from mlf_jax import UserError

try:
  LOSSES['cross_entropy'] = Loss(squared_error)
except UserError as error:
  print(error)

# %% [markdown]
# [Design](../design.html) lists every seam.
