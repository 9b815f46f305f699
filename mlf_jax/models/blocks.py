"""Residual blocks, by name: the seam through which networks know them.

Submodules carry the names of the published checkpoints.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.2.
"""

import functools

import flax.linen as nn
from jax.ad_checkpoint import checkpoint_name

from mlf_jax.layers import LayerFactory
from mlf_jax.layers.narrow_integers import CURRENT
from mlf_jax.layers.spiking_units import Range
from mlf_jax.registry import Registry, subclass_of

SHORTCUTS = ('mlf', 'norm')


class ResidualBlock(nn.Module):
  """Base of residual blocks: two 3x3 convolutions and a shortcut.

  A block of one's own defines `__call__(self, x, train)`: `x` is the output of
  the block before, [time * batch, height, width, channel], the result is
  [time * batch, height / stride, width / stride, features], and `train` says
  whether to normalise with the statistics of the batch. It overrides
  `output_range` if its results are whole numbers.

  Attributes:
    features: output channels.
    stride: stride of the first convolution and of the shortcut.
    make: makes the layers.
    shortcut: 'mlf': a projection ends in spiking units; 'norm': in the
      normalisation.
    input_range: range of the whole numbers that the input holds, or None.
  """

  features: int
  stride: int
  make: LayerFactory
  shortcut: str
  input_range: Range | None = None

  # The shortcut of the published networks with this block.
  default_shortcut = 'mlf'
  # Whether blocks begin with units and pass currents on. The units of the stem
  # then stand behind the last block.
  fires_first = False

  def output_range(self, projects: bool) -> Range | None:
    """Range of the whole numbers that the block returns; None for others.

    Args:
      projects: whether the shortcut is a projection.
    """
    del projects
    return None

  def convolved_twice(self, x, train):
    """Result of conv2(units(bn1(conv1(x)))), the current of the last units."""
    make = self.make
    conv = functools.partial(make.conv, self.features, 3)
    y = conv(self.stride, input_range=self.input_range, name='conv1')(x)
    y = make.normalized_units(make.norm(name='bn1'), y, train)
    return conv(input_range=make.unit.output_range(), name='conv2')(y)

  def shortcut_of(self, x, train):
    """Identity, or a projection where stride or channels change."""
    if self.stride == 1 and x.shape[-1] == self.features:
      return x
    make = self.make
    conv = functools.partial(make.conv, self.features, 1, self.stride)
    x = conv(input_range=self.input_range, name='shortcut_conv')(x)
    norm = make.norm(name='shortcut_bn')
    if self.shortcut == 'mlf':
      return make.normalized_units(norm, x, train)
    return norm(x, not train)


# Classes of blocks, by the name in `config.model.residual`.
BLOCKS: Registry[type[ResidualBlock]] = Registry(
  'residual', subclass_of(ResidualBlock, '__call__')
)


@BLOCKS.register('ds')
class DSBlock(ResidualBlock):
  """Dormant-suppressed block: the last units fire before the addition.

  From block to block the shortcut is then an identity, for the gradient too.
  """

  def output_range(self, projects):
    """Sum of the ranges of the last units and of the shortcut."""
    spikes, shortcut = self.make.unit.output_range(), self.input_range
    if projects:
      shortcut = spikes if self.shortcut == 'mlf' else None
    if spikes is None or shortcut is None:
      return None
    return spikes[0] + shortcut[0], spikes[1] + shortcut[1]

  @nn.compact
  def __call__(self, x, train):
    """units(bn2(conv2(units(bn1(conv1(x)))))) + shortcut(x)."""
    x = self.make.mode.block_input(x, self.input_range)
    shortcut = self.shortcut_of(x, train)
    y = self.convolved_twice(x, train)
    y = self.make.normalized_units(self.make.norm(name='bn2'), y, train)
    # Spikes are exact in any dtype, so the sum takes the dtype of the shortcut.
    return y.astype(shortcut.dtype) + shortcut


@BLOCKS.register('plain')
class PlainBlock(ResidualBlock):
  """Plain spiking block, the paper's baseline: fires after the addition."""

  default_shortcut = 'norm'

  def output_range(self, projects):
    """Range of the last units."""
    del projects
    return self.make.unit.output_range()

  @nn.compact
  def __call__(self, x, train):
    """units(bn2(conv2(units(bn1(conv1(x))))) + shortcut(x))."""
    x = self.make.mode.block_input(x, self.input_range)
    shortcut = self.shortcut_of(x, train)
    y = checkpoint_name(self.convolved_twice(x, train), CURRENT)
    y = self.make.norm(name='bn2')(y, not train)
    y = checkpoint_name(y + shortcut.astype(y.dtype), CURRENT)
    return self.make.units('units2')(y)


@BLOCKS.register('sew')
class SEWBlock(DSBlock):
  """Spike-element-wise block that adds: the same equations as 'ds'.

  Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks",
  NeurIPS 2021, with ADD as the function g and units in the shortcut.
  """


@BLOCKS.register('ms')
class MSBlock(ResidualBlock):
  """Membrane-shortcut block: units fire before each convolution.

  From block to block goes a current, which is a real number. A projection
  shortcut convolves it as it is.

  Source: Hu et al., "Advancing Spiking Neural Networks Toward Deep Residual
  Learning", IEEE Transactions on Neural Networks and Learning Systems, 2024.
  """

  default_shortcut = 'norm'
  fires_first = True

  @nn.compact
  def __call__(self, x, train):
    """bn2(conv2(units(bn1(conv1(units(x)))))) + shortcut(x)."""
    make = self.make
    x = checkpoint_name(make.mode.block_input(x, self.input_range), CURRENT)
    shortcut = self.shortcut_of(x, train)
    spikes = make.unit.output_range()
    conv = functools.partial(make.conv, self.features, 3, input_range=spikes)
    y = conv(self.stride, name='conv1')(make.units('units0')(x))
    y = make.normalized_units(make.norm(name='bn1'), y, train)
    y = checkpoint_name(conv(name='conv2')(y), CURRENT)
    y = make.norm(name='bn2')(y, not train)
    return y + shortcut.astype(y.dtype)


BLOCKS.seal()
