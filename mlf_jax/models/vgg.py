"""Spiking VGG-16 with MLF units.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 4. Submodules carry the names of the published checkpoints.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax.errors import UserError, require_positive_integers
from mlf_jax.layers import (
  MLF,
  LayerFactory,
  Readout,
  SpikingUnit,
  TimestepDropout,
  fold_time_into_batch,
  repeat_over_time,
)
from mlf_jax.layers.initializers import uniform_fan_in


class SpikingVGG(nn.Module):
  """Spiking VGG-16: conv3x3-tdBN-MLF groups, then two dense MLF layers.

  The collection 'membrane_potential' carries a recording from call to call: see
  `mlf_jax.stream`.

  Attributes:
    num_classes: number of classes.
    time_steps: timesteps T. May differ between training and inference.
    unit: the spiking units; see `mlf_jax.layers.SpikingUnit`.
    dropout_rate: rate after each dense MLF layer; the mask is drawn for each
      timestep, from the RNG named 'dropout'.
    normalization: normalisation of the current, one of
      `mlf_jax.layers.NORMALIZATIONS`.
    normalize_input: normalisation without gamma and beta on the input.
    memory: what is kept for the backward pass, one of
      `mlf_jax.layers.memory_modes.MODES`; the numbers are the same.
    dtype: dtype of convolutions and dense layers; membranes, statistics and
      parameters are float32 or wider.
    axis_name: mesh or `pmap` axis over which the batch is divided.
    widths: channels of the convolutions; a 2x2 average pool after each group.

  Raises:
    UserError: an attribute outside its range, at construction.
  """

  num_classes: int
  time_steps: int
  unit: SpikingUnit = MLF()
  dropout_rate: float = 0.25
  normalization: str = 'tdbn'
  normalize_input: bool = False
  memory: str = 'fastest'
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None
  widths: tuple[tuple[int, ...], ...] = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
  )

  def __post_init__(self):
    """Validates the attributes."""
    require_positive_integers(
      num_classes=self.num_classes, time_steps=self.time_steps
    )
    for group in self.widths:
      require_positive_integers(widths=group)
    if not 0 <= self.dropout_rate < 1:
      raise UserError(
        f'dropout_rate must lie in [0, 1), got {self.dropout_rate}'
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
        frames [batch, time, height, width, channel] with `time_steps` frames;
        height and width such that the pools leave one position, 32 to 63 for
        five groups.
      train: normalise with the statistics of the batch and update the running
        ones (apply with `mutable=['batch_stats']`), and drop out.
      every_timestep: return the logits of every timestep instead of their mean.

    Returns:
      [batch, num_classes], or [time, batch, num_classes] for every timestep;
      float32 or wider.

    Raises:
      UserError: wrong rank, size or number of timesteps.
    """
    make = LayerFactory.for_network(self)
    x, copies = fold_time_into_batch(x, self.time_steps, make.param_dtype)
    pools = len(self.widths)
    if not all(side >> pools == 1 for side in x.shape[1:3]):
      raise UserError(
        f'a spiking VGG with {pools} pools needs images of {2**pools} to '
        f'{2 ** (pools + 1) - 1} pixels per side, got '
        f'{x.shape[1]}x{x.shape[2]}'
      )
    if self.normalize_input:
      x = make.norm(affine=False, name='bn0')(x, not train, copies)
    apply_group = make.mode.block(
      SpikingVGG._group, static_argnums=(2, 3, 4, 5)
    )
    index = 0
    for group in self.widths:
      x = apply_group(self, x, group, index, copies, train)
      # Only the stem sees an image; its spikes have a time axis.
      copies = 1
      index += len(group) + 1  # The published names count the pools.

    x = x.reshape((x.shape[0], -1))
    # Likewise they count the units and dropouts between the dense layers.
    for index, features in ((0, 512), (3, 256)):
      x = self._dense(make, features, x, index, self.dtype)
      units = make.units(f'classifier{index}_units')
      x = units(x.astype(make.param_dtype))
      x = TimestepDropout(self.dropout_rate, self.time_steps, self.axis_name)(
        x, not train
      )
    # The last dense layer is linear: averaging before it gives the mean logits.
    x = Readout(self.time_steps, make.param_dtype)(x, every_timestep)
    return self._dense(make, self.num_classes, x, 6, make.param_dtype)

  def _group(self, x, group, index, copies, train):
    """Convolutions with their units, and the pool after them."""
    make = LayerFactory.for_network(self)
    x = make.mode.block_input(x, None)
    # The input of a group is an image, or means of four spikes.
    value_range = None
    for i, features in enumerate(group, start=index):
      init = uniform_fan_in(9 * x.shape[-1])
      x = make.conv(
        features,
        3,
        input_range=value_range,
        use_bias=True,
        kernel_init=init,
        bias_init=init,
        name=f'feature{i}_conv',
      )(x)
      norm = make.norm(name=f'feature{i}_bn')
      affine = norm.coefficients(x, not train, copies)
      units = make.units(f'feature{i}_units')
      x = units(repeat_over_time(x, copies), affine)
      copies, value_range = 1, self.unit.output_range()
    return nn.avg_pool(x, (2, 2), (2, 2))

  def _dense(self, make, features, x, index, dtype):
    init = uniform_fan_in(x.shape[-1])
    return nn.Dense(
      features,
      kernel_init=init,
      bias_init=init,
      dtype=dtype,
      param_dtype=make.param_dtype,
      name=f'classifier{index}',
    )(x)


# The network of the paper.
spiking_vgg16 = functools.partial(SpikingVGG, num_classes=10, time_steps=4)
