"""Spiking residual networks: DS-ResNet and the plain spiking ResNet.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.2. Submodules carry the names of the published checkpoints.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax.errors import UserError, require_positive_integers, unknown
from mlf_jax.layers import (
  MLF,
  LayerFactory,
  Readout,
  SpikingUnit,
  fold_time_into_batch,
  repeat_over_time,
)
from mlf_jax.layers.initializers import he_normal, uniform_fan_in
from mlf_jax.layers.scanned_blocks import apply_in_scan
from mlf_jax.models.blocks import BLOCKS, SHORTCUTS

# Size and stride of the first convolution, by `stem`.
STEMS = {'3x3': (3, 1), '7x7': (7, 2)}


def stage_sizes_for_depth(depth: int) -> tuple[int, int, int]:
  """Blocks in each of the three stages of a network named by its depth.

  Raises:
    UserError: `depth` is not 6n + 2 with n >= 1.
  """
  require_positive_integers(depth=depth)
  n, rest = divmod(depth - 2, 6)
  if rest or n < 1:
    near = 6 * max(1, round((depth - 2) / 6)) + 2
    raise UserError(
      f'depth must be 6n + 2 (8, 14, 20, 32, 44, 68, ...), got {depth}; the '
      f'nearest is {near}'
    )
  return (n, n, n)


class SpikingResNet(nn.Module):
  """Spiking residual network.

  The collection 'membrane_potential' carries a recording from call to call: see
  `mlf_jax.stream`.

  Attributes:
    stage_sizes: blocks in each stage; the first block of every stage but the
      first has stride 2. See `stage_sizes_for_depth`.
    widths: channels of each stage.
    num_classes: number of classes.
    time_steps: timesteps T. May differ between training and inference.
    unit: the spiking units; see `mlf_jax.layers.SpikingUnit`.
    residual: the residual block, one of `mlf_jax.models.BLOCKS`: 'ds'
      (dormant-suppressed), 'plain', 'sew' or 'ms'.
    shortcut: end of a projection shortcut: 'mlf' (spiking units) or 'norm';
      None for that of the published network with this block.
    normalization: normalisation of the current, one of
      `mlf_jax.layers.NORMALIZATIONS`.
    normalize_input: normalisation without gamma and beta on the input.
    stem: '3x3': one 3x3 convolution, for small images; '7x7': a 7x7 convolution
      with stride 2, and a 3x3 maximum with stride 2 of what its units emit, for
      images of ImageNet's size.
    hidden: units of dense layers in front of the last one, each a dense layer
      with bias whose units fire at every timestep.
    memory: what is kept for the backward pass, one of
      `mlf_jax.layers.memory_modes.MODES`; the numbers are the same.
    scan_blocks: run the blocks of a stage that are alike, if there are two or
      more, in one loop. The variables are the same, and the numbers to rounding
      (in bfloat16 XLA leaves out other roundings in a loop). Compilation grows
      little with depth; a step takes somewhat longer, and besides the weights
      there are the loop's copies of them and of their gradients. Only
      'batch_stats', the state and what `mlf_jax.activity` observes come out of
      the loop, not 'intermediates'.
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
  unit: SpikingUnit = MLF()
  residual: str = 'ds'
  shortcut: str | None = None
  normalization: str = 'tdbn'
  normalize_input: bool = False
  stem: str = '3x3'
  hidden: tuple[int, ...] = ()
  memory: str = 'fastest'
  scan_blocks: bool = False
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  def __post_init__(self):
    """Validates the attributes."""
    require_positive_integers(
      stage_sizes=self.stage_sizes,
      widths=self.widths,
      num_classes=self.num_classes,
      time_steps=self.time_steps,
    )
    if len(self.stage_sizes) != len(self.widths):
      raise UserError(
        f'{len(self.stage_sizes)} stage_sizes but {len(self.widths)} widths; '
        'one width per stage is needed'
      )
    if self.hidden:
      require_positive_integers(hidden=self.hidden)
    BLOCKS[self.residual]
    if self.stem not in STEMS:
      raise unknown('stem', self.stem, STEMS)
    if self.shortcut not in (None, *SHORTCUTS):
      raise UserError(
        f"shortcut must be 'mlf', 'norm' or None, got {self.shortcut!r}"
      )
    if not isinstance(self.scan_blocks, bool):
      raise UserError(
        f'scan_blocks must be True or False, got {self.scan_blocks!r}'
      )
    LayerFactory.for_network(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Num[Array, 'batch *time height width channel'],
    train: bool = False,
    every_timestep: bool = False,
  ) -> Float[Array, '*time batch classes']:
    """Computes the logits of a batch.

    Args:
      x: images [batch, height, width, channel], shown at every timestep, or
        frames [batch, time, height, width, channel] with `time_steps` frames.
      train: normalise with the statistics of the batch and update the running
        ones (apply with `mutable=['batch_stats']`).
      every_timestep: return the logits of every timestep instead of their mean.

    Returns:
      [batch, num_classes], or [time, batch, num_classes] for every timestep;
      float32 or wider.

    Raises:
      UserError: wrong rank or wrong number of timesteps.
    """
    make = LayerFactory.for_network(self)
    x, copies = fold_time_into_batch(x, self.time_steps, make.param_dtype)
    if self.normalize_input:
      x = make.norm(affine=False, name='bn0')(x, not train, copies)
    size, stride = STEMS[self.stem]
    x = make.conv(self.widths[0], size, stride, name='conv1')(x)
    affine = make.norm(name='bn1').coefficients(x, not train, copies)
    x = repeat_over_time(x, copies)
    if BLOCKS[self.residual].fires_first:
      x, value_range = affine(x), None
    else:
      x = make.units('units1')(x, affine)
      value_range = self.unit.output_range()
    if stride > 1:
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for stage, (size, features) in enumerate(
      zip(self.stage_sizes, self.widths, strict=True)
    ):
      names = [f'layer{stage + 1}_{i}' for i in range(size)]
      if stage > 0:
        first = self._block(make, features, 2, value_range, names.pop(0))
        x = _applied(first, x, train)
        value_range = first.output_range(projects=True)
      # All parameters are drawn at initialisation, which needs every block.
      if self.scan_blocks and len(names) > 1 and not self.is_initializing():
        x, value_range = self._scan(
          make, features, value_range, names, x, train
        )
      else:
        for name in names:
          block = self._block(make, features, 1, value_range, name)
          x = _applied(block, x, train)
          value_range = block.output_range(projects=False)

    if BLOCKS[self.residual].fires_first:
      x = make.units('units1')(x)
    for i, features in enumerate(self.hidden):
      if x.ndim > 2:
        x = x.astype(make.param_dtype).mean((1, 2))
      x = self._dense(make, features, f'hidden{i + 1}', x)
      x = make.units(f'hidden{i + 1}_units')(x)
    # The dense layer is linear: averaging before it gives the mean logits.
    x = Readout(self.time_steps, make.param_dtype)(x, every_timestep)
    return self._dense(make, self.num_classes, 'voting', x)

  def _dense(self, make, features, name, x):
    """A dense layer with bias."""
    return nn.Dense(
      features,
      kernel_init=he_normal,
      bias_init=uniform_fan_in(x.shape[-1]),
      dtype=make.param_dtype,
      param_dtype=make.param_dtype,
      name=name,
    )(x)

  def _block(self, make, features, stride, input_range, name):
    """A block; its first one of a stage projects."""
    block = BLOCKS[self.residual]
    shortcut = self.shortcut or block.default_shortcut
    block = make.mode.block(block, static_argnums=(2,))
    return block(features, stride, make, shortcut, input_range, name=name)

  def _scan(self, make, features, value_range, names, x, train):
    """Runs blocks that are alike in one loop."""
    block = BLOCKS[self.residual]
    shortcut = self.shortcut or block.default_shortcut
    # One block stands for all: its input range is the widest, the last one's.
    for _ in names:
      one = block(features, 1, make, shortcut, value_range, parent=None)
      value_range = one.output_range(projects=False)
    policy = make.mode.scan_policy
    return apply_in_scan(self, names, one, policy, x, train), value_range


def _applied(block, x, train):
  """Result of a block, which has to have the size that its stride gives."""
  y = block(x, train)
  height, width = (-(-side // block.stride) for side in x.shape[1:3])
  wanted = (x.shape[0], height, width, block.features)
  if getattr(y, 'shape', None) != wanted:
    raise UserError(
      f'the block {block.name} must return one array of shape {wanted}, got '
      f'{getattr(y, "shape", y)!r}'
    )
  return y


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
# Networks in which most papers compare. Source of the first: He et al., CVPR
# 2016; of the second: Zheng et al., AAAI 2021. Its stem has 128 channels; some
# later papers take 64.
resnet18 = functools.partial(
  SpikingResNet, stage_sizes=(2, 2, 2, 2), widths=(64, 128, 256, 512)
)
resnet19 = functools.partial(
  SpikingResNet,
  stage_sizes=(3, 3, 2),
  widths=(128, 256, 512),
  hidden=(256,),
)
