"""Synapses that the input of each layer meets, in spikes or in numbers."""

import dataclasses
import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mlf_jax import activity
from mlf_jax.activity.capture import in_order
from mlf_jax.errors import UserError
from mlf_jax.layers import Readout, SpikingUnits


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=(
    'quarter_spikes',
    'fan_out',
    'channels',
    'times',
    'is_whole',
    'is_quarters',
  ),
  meta_fields=(),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Synapses:
  """Spikes that reach a layer, and the synapses that they meet there.

  Attributes:
    quarter_spikes: four times the spikes at each position, over all channels
      and timesteps: the mean that a 2x2 pool takes of four spikes is whole
      numbers then.
    fan_out: synapses of a channel at each position.
    channels: input channels.
    times: times that the layer is applied to a sample.
    is_whole: whether the input is whole numbers; False for the network's own
      input.
    is_quarters: whether it is quarters.
  """

  quarter_spikes: Int[Array, 'batch *space']
  fan_out: Int[Array, '*space']
  channels: Int[Array, '']
  times: Int[Array, '']
  is_whole: Array
  is_quarters: Array

  @classmethod
  def of(cls, x, batch: int, fan_out, times: int, is_input: bool) -> 'Synapses':
    """Counts an input [times * batch, *space, channel]."""
    per_sample = jnp.abs(x).reshape((-1, batch, *x.shape[1:]))
    quarters = jnp.round(4 * per_sample).astype(jnp.int32).sum((0, -1))
    whole, quarter = (
      (x * n == jnp.round(x * n)).all() & (not is_input) for n in (1, 4)
    )
    return cls(
      # Positions that the fan-out does not distinguish are added up.
      quarter_spikes=quarters.sum(
        tuple(range(1 + fan_out.ndim, quarters.ndim))
      ),
      fan_out=fan_out,
      channels=jnp.int32(x.shape[-1]),
      times=jnp.int32(times),
      is_whole=whole,
      is_quarters=quarter,
    )

  def of_samples(self, samples: Int[np.ndarray, 'sample']) -> 'Synapses':
    """Only some of the samples."""
    return dataclasses.replace(
      self, quarter_spikes=self.quarter_spikes[samples]
    )

  @classmethod
  def concatenate(cls, parts: list['Synapses']) -> 'Synapses':
    """Samples of several batches."""
    return dataclasses.replace(
      parts[0],
      quarter_spikes=np.concatenate([part.quarter_spikes for part in parts]),
      is_whole=all(part.is_whole for part in parts),
      is_quarters=all(part.is_quarters for part in parts),
    )

  @property
  def takes_spikes(self) -> bool:
    """True for an input of spikes, or of means of four spikes."""
    return bool(self.is_whole or self.is_quarters)

  @property
  def macs_once(self) -> int:
    """Multiply-accumulates when the layer is applied to a sample once."""
    return int(self.channels) * int(np.sum(self.fan_out, dtype=np.int64))

  @property
  def macs(self) -> Int[np.ndarray, 'sample']:
    """Multiply-accumulates of each sample."""
    each = 0 if self.takes_spikes else int(self.times) * self.macs_once
    return np.full(len(self.quarter_spikes), each, np.int64)

  @property
  def accumulates(self) -> Int[np.ndarray, 'sample']:
    """Accumulates of each sample."""
    if not self.takes_spikes:
      return np.zeros(len(self.quarter_spikes), np.int64)
    spikes = np.asarray(self.quarter_spikes, np.int64)
    if self.is_whole:
      spikes = spikes // 4
    return (spikes * np.asarray(self.fan_out)).reshape((len(spikes), -1)).sum(1)


def count_spikes(
  model: nn.Module,
  variables: dict,
  inputs: Float[Array, 'batch ...'],
) -> dict[str, Synapses]:
  """Counts the spikes that reach each convolution and dense layer.

  Args:
    model: the network.
    variables: `params` and `batch_stats`.
    inputs: input of the network.

  Returns:
    Layers to what reaches them, in the order of computation, on the host.

  Raises:
    UserError: there are weights that belong to neither kind of layer.
  """
  counted = jax.device_get(_count_spikes(model, variables, inputs))
  weights = {
    '/'.join(path[:-1])
    for path in flax.traverse_util.flatten_dict(variables['params'])
    if path[-1] == 'kernel'
  }
  if missing := sorted(weights - counted.keys()):
    raise UserError(
      f'the operations of {missing[0]} cannot be counted: it is neither a '
      'flax.linen.Conv nor a flax.linen.Dense'
    )
  return in_order(counted, activity.depth_order(model, inputs))


@functools.partial(jax.jit, static_argnums=0)
def _count_spikes(model, variables, inputs):
  batch, is_input, read_out = len(inputs), True, None

  def hook(module, x=None, *_, **__):
    nonlocal is_input, read_out
    if isinstance(module, SpikingUnits):
      is_input = False
    if isinstance(module, Readout):
      read_out = x
    if not isinstance(module, (nn.Conv, nn.Dense)):
      return None
    times = x.shape[0] // batch
    if read_out is not None:
      # The dense layer is linear, so it is the spikes that reach it, although
      # their mean is what is multiplied.
      x, read_out = read_out, None
    return Synapses.of(x, batch, _fan_out(module, x), times, is_input)

  return activity.capture(model, variables, inputs, hook)[1]


def _fan_out(module, x):
  """Number of synapses that leave one channel at each position of the input."""
  if isinstance(module, nn.Dense):
    return jnp.int32(module.features)
  # The transpose of a convolution brings a one from every output back along
  # each of its synapses; one input and one output channel tell all.
  single = module.clone(
    parent=None,
    features=1,
    feature_group_count=1,
    use_bias=False,
    dtype=jnp.float32,
    conv_general_dilated=None,
  )
  size = module.kernel_size
  size = (size,) if isinstance(size, int) else tuple(size)
  kernel = {'params': {'kernel': jnp.ones((*size, 1, 1))}}
  y, transpose = jax.vjp(
    lambda one: single.apply(kernel, one),
    jnp.zeros((1, *x.shape[1:-1], 1)),
  )
  (taps,) = transpose(jnp.ones_like(y))
  features = module.features // module.feature_group_count
  return taps[0, ..., 0].astype(jnp.int32) * features
