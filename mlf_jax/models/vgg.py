"""Spiking VGG-16 with MLF units.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 4. Submodules carry the names of the published checkpoints.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax import neuron
from mlf_jax.errors import UserError
from mlf_jax.models import convolution, layers, memory
from mlf_jax.norm import TDBatchNorm

# Widths of the convolutions; a 2x2 average pool after each group.
_GROUPS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


class SpikingVGG(nn.Module):
  """Spiking VGG-16: conv3x3-tdBN-MLF groups, then two dense MLF layers.

  The collection 'membrane_potential' carries a recording from call to call: see
  `mlf_jax.stream`.

  Attributes:
    num_classes: number of classes.
    time_steps: timesteps T. May differ between training and inference.
    thresholds: firing threshold of each level; the first scales tdBN.
    decay: decay of the membrane potential in [0, 1].
    width: width of the surrogate windows.
    surrogate: one of `mlf_jax.surrogate.SURROGATES`.
    dropout_rate: rate after each dense MLF layer; the mask is drawn for each
      timestep, from the RNG named 'dropout'.
    normalize_input: tdBN without gamma and beta on the input.
    memory: what is kept for the backward pass, one of `memory.MODES`; the
      numbers are the same.
    dtype: dtype of convolutions and dense layers; membranes, statistics and
      parameters are float32 or wider.
    axis_name: mesh or `pmap` axis over which the batch is divided.

  Raises:
    UserError: an attribute outside its range, at construction.
  """

  num_classes: int
  time_steps: int
  thresholds: tuple[float, ...] = (0.6, 1.6, 2.6)
  decay: float = 0.25
  width: float = 1.0
  surrogate: str = 'rectangular'
  dropout_rate: float = 0.25
  normalize_input: bool = False
  memory: str = 'fastest'
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  def __post_init__(self):
    """Validates the attributes."""
    layers.check_sizes(num_classes=self.num_classes, time_steps=self.time_steps)
    if not 0 <= self.dropout_rate < 1:
      raise UserError(
        f'dropout_rate must lie in [0, 1), got {self.dropout_rate}'
      )
    memory.check(self.memory)
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
        frames [batch, time, height, width, channel] with `time_steps` frames;
        height and width 32..63, since five pools must leave one position.
      train: normalise with the statistics of the batch and update the running
        ones (apply with `mutable=['batch_stats']`), and drop out.

    Returns:
      [batch, num_classes], the mean over the timesteps, float32 or wider.

    Raises:
      UserError: wrong rank, size or number of timesteps.
    """
    units = layers.units_of(self)
    param_dtype = neuron.membrane_dtype(self.dtype)
    x, copies = layers.enter_time(x, self.time_steps, param_dtype)
    if not all(32 <= side < 64 for side in x.shape[1:3]):
      raise UserError(
        'spiking VGG-16 pools five times and needs images of 32 to 63 pixels '
        f'a side, got {x.shape[1]}x{x.shape[2]}'
      )
    if self.normalize_input:
      x = self._norm(affine=False, name='bn0')(x, not train, copies)
    run_group = SpikingVGG._group
    if self.memory == 'smallest':
      run_group = memory.run_again(run_group, static_argnums=(2, 3, 4, 5))
    index = 0
    for group in _GROUPS:
      x = run_group(self, x, group, index, copies, train)
      # Only the stem sees an image; from its spikes on there is time.
      copies = 1
      index += len(group) + 1  # The published names count the pools.

    x = x.reshape((x.shape[0], -1))
    # Likewise they count the units and dropouts between the dense layers.
    for index, features in ((0, 512), (3, 256)):
      x = self._dense(features, x, index, self.dtype)
      x = units()(x.astype(param_dtype))
      x = layers.TimestepDropout(
        self.dropout_rate, self.time_steps, self.axis_name
      )(x, not train)
    # The last dense layer is linear: averaging before it is the same.
    x = layers.Readout(self.time_steps, param_dtype)(x)
    return self._dense(self.num_classes, x, 6, param_dtype)

  def _group(self, x, group, index, copies, train):
    """Convolutions with their units, and the pool after them."""
    param_dtype = neuron.membrane_dtype(self.dtype)
    if self.memory == 'smallest':
      x = memory.keep(x, None)
    for i, features in enumerate(group):
      init = layers.uniform_fan_in(9 * x.shape[-1])
      conv = functools.partial(
        nn.Conv,
        kernel_size=(3, 3),
        padding=1,
        kernel_init=init,
        bias_init=init,
        dtype=self.dtype,
        param_dtype=param_dtype,
      )
      # What enters a group is an image, or means of four spikes.
      if i > 0 and self.memory != 'fastest':
        conv = convolution.of(conv, len(self.thresholds))
      x = conv(features, name=f'feature{index + i}_conv')(x)
      affine = self._norm(name=f'feature{index + i}_bn').coefficients(
        x, not train, copies
      )
      x = layers.show_every_timestep(x, copies)
      x = layers.units_of(self)()(x, affine)
      copies = 1
    return nn.avg_pool(x, (2, 2), (2, 2))

  def _norm(self, **attributes):
    return TDBatchNorm(
      threshold=self.thresholds[0], axis_name=self.axis_name, **attributes
    )

  def _dense(self, features, x, index, dtype):
    init = layers.uniform_fan_in(x.shape[-1])
    return nn.Dense(
      features,
      kernel_init=init,
      bias_init=init,
      dtype=dtype,
      param_dtype=neuron.membrane_dtype(self.dtype),
      name=f'classifier{index}',
    )(x)


# The network of the paper.
spiking_vgg16 = functools.partial(SpikingVGG, num_classes=10, time_steps=4)
