"""Spiking residual networks: DS-ResNet and the plain spiking ResNet.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.2. Submodules carry the names of the published checkpoints.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Num

from mlf_jax import neuron
from mlf_jax.errors import UserError
from mlf_jax.models import convolution, layers, memory, scan
from mlf_jax.norm import TDBatchNorm


def stage_sizes_for_depth(depth: int) -> tuple[int, int, int]:
  """Blocks in each of the three stages of a network named by its depth.

  Raises:
    UserError: `depth` is not 6n + 2 with n >= 1.
  """
  layers.check_sizes(depth=depth)
  n, rest = divmod(depth - 2, 6)
  if rest or n < 1:
    near = 6 * max(1, round((depth - 2) / 6)) + 2
    raise UserError(
      f'depth must be 6n + 2 (8, 14, 20, 32, 44, 68, ...), got {depth}; the '
      f'nearest is {near}'
    )
  return (n, n, n)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  Attributes:
    features: output channels.
    stride: stride of the first convolution and of the shortcut.
    units: MLF units, their attributes bound.
    conv: convolution, all but its features and size bound.
    norm: tdBN, its attributes bound.
    residual: 'ds': the second unit fires before the addition, so that the
      shortcut is an identity from block to block; 'plain': after it.
    shortcut: 'mlf': a projection ends in MLF units; 'norm': in tdBN.
    memory: one of `memory.MODES`.
    num_levels: levels of the units, K.
    largest_input: `x` holds whole numbers from 0 to this; None if it does not.
    in_loop: whether it runs in a `jax.lax.scan`; without a projection then.
  """

  features: int
  stride: int
  units: Callable
  conv: Callable
  norm: Callable
  residual: str = 'ds'
  shortcut: str = 'mlf'
  memory: str = 'fastest'
  num_levels: int = 3
  largest_input: int | None = None
  in_loop: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'folded height width channel'], train: bool
  ) -> Float[Array, 'folded height_out width_out features']:
    """Applies the block; time is folded into batch, time-major."""
    stride = (self.stride, self.stride)
    if self.memory == 'smallest':
      x = memory.keep(x, self.largest_input)
    conv_in = self._convolution(self.largest_input)
    conv_between = self._convolution(self.num_levels)
    residual = x
    if self.stride != 1 or x.shape[-1] != self.features:
      residual = conv_in(
        self.features, (1, 1), stride, 0, name='shortcut_conv'
      )(x)
      norm = self.norm(name='shortcut_bn')
      if self.shortcut == 'mlf':
        residual = self.normalized_units(norm, residual, train)
      else:
        residual = norm(residual, not train)

    y = conv_in(self.features, (3, 3), stride, 1, name='conv1')(x)
    y = self.normalized_units(self.norm(name='bn1'), y, train)
    y = conv_between(self.features, (3, 3), 1, 1, name='conv2')(y)
    norm = self.norm(name='bn2')
    if self.residual == 'ds':
      # Spikes are exact in any dtype, so the sum takes the shortcut's.
      y = self.normalized_units(norm, y, train)
      return y.astype(residual.dtype) + residual
    y = norm(checkpoint_name(y, memory.CURRENT), not train)
    y = checkpoint_name(y + residual.astype(y.dtype), memory.CURRENT)
    return self.units()(y)

  def normalized_units(self, norm, x, train):
    """Spikes of a normalised current, which is not written to memory."""
    x = checkpoint_name(x, memory.CURRENT)
    return self.units()(x, norm.coefficients(x, not train))

  def _convolution(self, largest):
    """A convolution whose input is whole numbers from 0 to `largest`."""
    if self.memory == 'fastest':
      largest = None
    return convolution.of(self.conv, largest, self.in_loop)


class SpikingResNet(nn.Module):
  """Spiking residual network with MLF units and tdBN.

  The collection 'membrane_potential' carries a recording from call to call: see
  `mlf_jax.stream`.

  Attributes:
    stage_sizes: blocks in each stage; the first block of every stage but the
      first has stride 2. See `stage_sizes_for_depth`.
    widths: channels of each stage.
    num_classes: number of classes.
    time_steps: timesteps T. May differ between training and inference.
    residual: 'ds' (dormant-suppressed) or 'plain'.
    shortcut: 'mlf' or 'norm', how a projection shortcut ends; None is 'mlf'
      for 'ds' and 'norm' for 'plain'.
    thresholds: firing threshold of each level; the first scales tdBN.
    decay: decay of the membrane potential in [0, 1].
    width: width of the surrogate windows.
    surrogate: one of `mlf_jax.surrogate.SURROGATES`.
    normalize_input: tdBN without gamma and beta on the input.
    memory: what is kept for the backward pass, one of `memory.MODES`; the
      numbers are the same.
    scan_blocks: run the blocks of a stage that are alike, if there are two or
      more, in one loop. The variables are the same, and the numbers to rounding
      (in bfloat16 XLA leaves out roundings, not the same ones in a loop).
      Compilation grows little with depth; a step takes somewhat longer, and
      besides the weights there is the loop's copy of them, and of their
      gradients. Only 'batch_stats' and 'membrane_potential' come out of the
      loop, not 'intermediates'.
    dtype: dtype of the convolutions; membranes, statistics and parameters are
      float32 or wider.
    axis_name: mesh or `pmap` axis over which the batch is divided.

  Raises:
    UserError: an attribute outside its range, at construction.
  """

  stage_sizes: tuple[int, ...]
  widths: tuple[int, ...]
  num_classes: int
  time_steps: int
  residual: str = 'ds'
  shortcut: str | None = None
  thresholds: tuple[float, ...] = (0.6, 1.6, 2.6)
  decay: float = 0.25
  width: float = 1.0
  surrogate: str = 'rectangular'
  normalize_input: bool = False
  memory: str = 'fastest'
  scan_blocks: bool = False
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  def __post_init__(self):
    """Validates the attributes."""
    layers.check_sizes(
      stage_sizes=self.stage_sizes,
      widths=self.widths,
      num_classes=self.num_classes,
      time_steps=self.time_steps,
    )
    if len(self.stage_sizes) != len(self.widths):
      raise UserError(
        f'{len(self.stage_sizes)} stage_sizes but {len(self.widths)} widths; '
        'one width a stage is needed'
      )
    if self.residual not in ('ds', 'plain'):
      raise UserError(
        f"residual must be 'ds' or 'plain', got {self.residual!r}"
      )
    if self.shortcut not in (None, 'mlf', 'norm'):
      raise UserError(
        f"shortcut must be 'mlf', 'norm' or None, got {self.shortcut!r}"
      )
    memory.check(self.memory)
    if not isinstance(self.scan_blocks, bool):
      raise UserError(
        f'scan_blocks must be True or False, got {self.scan_blocks!r}'
      )
    layers.check_neuron(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Num[Array, 'batch *time height width channel'],
    train: bool = False,
  ) -> Float[Array, 'batch classes']:
    """Logits of a batch.

    Args:
      x: images [batch, height, width, channel], shown at every timestep, or
        frames [batch, time, height, width, channel] with `time_steps` frames.
      train: normalise with the statistics of the batch and update the running
        ones (apply with `mutable=['batch_stats']`).

    Returns:
      [batch, num_classes], the mean over the timesteps, float32 or wider.

    Raises:
      UserError: wrong rank or wrong number of timesteps.
    """
    units = layers.units_of(self)
    param_dtype = neuron.membrane_dtype(self.dtype)
    conv = functools.partial(
      nn.Conv,
      use_bias=False,
      kernel_init=layers.he_normal,
      dtype=self.dtype,
      param_dtype=param_dtype,
    )
    norm = functools.partial(
      TDBatchNorm, threshold=self.thresholds[0], axis_name=self.axis_name
    )
    shortcut = self.shortcut or {'ds': 'mlf', 'plain': 'norm'}[self.residual]

    x, copies = layers.enter_time(x, self.time_steps, param_dtype)
    if self.normalize_input:
      x = norm(affine=False, name='bn0')(x, not train, copies)
    x = conv(self.widths[0], (3, 3), 1, 1, name='conv1')(x)
    affine = norm(name='bn1').coefficients(x, not train, copies)
    x = units()(layers.show_every_timestep(x, copies), affine)
    num_levels = len(self.thresholds)
    block = BasicBlock
    if self.memory == 'smallest':
      block = memory.run_again(BasicBlock, static_argnums=(2,))
    attributes = {
      'units': units,
      'conv': conv,
      'norm': norm,
      'residual': self.residual,
      'shortcut': shortcut,
      'memory': self.memory,
      'num_levels': num_levels,
    }
    # What a block adds to the largest sum of spikes that enters it.
    grows = num_levels if self.residual == 'ds' else 0
    # That sum; None for other numbers.
    largest = num_levels
    for stage, (size, features) in enumerate(
      zip(self.stage_sizes, self.widths, strict=True)
    ):
      alike = [f'layer{stage + 1}_{i}' for i in range(size)]
      if stage > 0:
        x = block(
          features, 2, largest_input=largest, name=alike.pop(0), **attributes
        )(x, train)
        normalised = self.residual == 'ds' and shortcut == 'norm'
        largest = None if normalised else num_levels + grows
      *inputs, largest = (
        None if largest is None else largest + i * grows
        for i in range(len(alike) + 1)
      )
      # At initialisation every block has its own parameters to draw.
      if self.scan_blocks and len(alike) > 1 and not self.is_initializing():
        one = BasicBlock(
          features,
          1,
          largest_input=inputs[-1],
          in_loop=True,
          parent=None,
          **attributes,
        )
        x = scan.run(self, alike, one, memory.policy(self.memory), x, train)
      else:
        for name, largest_input in zip(alike, inputs, strict=True):
          x = block(
            features, 1, largest_input=largest_input, name=name, **attributes
          )(x, train)

    # The dense layer is linear: averaging before it is the same.
    x = layers.Readout(self.time_steps, param_dtype)(x)
    return nn.Dense(
      self.num_classes,
      kernel_init=layers.he_normal,
      bias_init=layers.uniform_fan_in(x.shape[-1]),
      dtype=param_dtype,
      param_dtype=param_dtype,
      name='voting',
    )(x)


# The networks of the paper.
ds_resnet20_cifar10 = functools.partial(
  SpikingResNet,
  stage_sizes=stage_sizes_for_depth(20),
  widths=(64, 128, 256),
  num_classes=10,
  time_steps=4,
)
ds_resnet20_dvs_gesture = functools.partial(
  SpikingResNet,
  stage_sizes=stage_sizes_for_depth(20),
  widths=(16, 32, 64),
  num_classes=11,
  time_steps=40,
  normalize_input=True,
)
ds_resnet14_cifar10_dvs = functools.partial(
  SpikingResNet,
  stage_sizes=stage_sizes_for_depth(14),
  widths=(32, 64, 128),
  num_classes=10,
  time_steps=10,
)
