"""Makes the layers of a network from the network's attributes."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from mlf_jax import neuron
from mlf_jax.errors import UserError
from mlf_jax.layers.initializers import he_normal
from mlf_jax.layers.memory_modes import MODES, MemoryMode
from mlf_jax.layers.narrow_integers import CURRENT
from mlf_jax.layers.normalization import NORMALIZATIONS, TEBatchNorm
from mlf_jax.layers.spiking_units import (
  Range,
  SpikingUnit,
  SpikingUnits,
  unit_problem,
)


@dataclasses.dataclass(frozen=True)
class LayerFactory:
  """Makes the layers that networks and their blocks are built from.

  Attributes:
    unit: description of the spiking units.
    time_steps: timesteps folded into batch.
    normalization: one of `NORMALIZATIONS`.
    memory: one of `MODES`.
    dtype: dtype of convolutions and spikes.
    axis_name: mesh or `pmap` axis over which the batch is divided.

  Raises:
    UserError: an attribute that cannot be right.
  """

  unit: SpikingUnit
  time_steps: int
  normalization: str
  memory: str
  dtype: jnp.dtype
  axis_name: str | None

  def __post_init__(self):
    """Validates the attributes."""
    if not isinstance(self.unit, SpikingUnit):
      raise UserError(
        f'unit must be a spiking unit such as MLF(), got {self.unit!r}'
      )
    if problem := unit_problem(type(self.unit)):
      raise UserError(f'unit: {problem}')
    for registry, name in (
      (NORMALIZATIONS, self.normalization),
      (MODES, self.memory),
    ):
      registry[name]
    try:
      floating = jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating)
    except TypeError:
      floating = False
    if not floating:
      raise UserError(f'dtype must be a floating dtype, got {self.dtype!r}')

  @classmethod
  def for_network(cls, network: nn.Module) -> 'LayerFactory':
    """Factory with the attributes of a network."""
    return cls(*(getattr(network, f.name) for f in dataclasses.fields(cls)))

  @property
  def mode(self) -> MemoryMode:
    """The memory mode."""
    return MODES[self.memory]

  @property
  def param_dtype(self) -> jnp.dtype:
    """Dtype of parameters, statistics and membranes: float32 or wider."""
    return neuron.membrane_dtype(self.dtype)

  def conv(
    self,
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    input_range: Range | None = None,
    **attributes,
  ) -> nn.Conv:
    """Convolution that leaves height and width as they are, but for the stride.

    It has no bias and He-normal weights unless `attributes` say otherwise.

    Args:
      features: output channels.
      kernel_size: height and width of the kernel, odd.
      stride: stride along height and width.
      input_range: range of the whole numbers that the input holds, or None.
      **attributes: further attributes of `nn.Conv`.
    """
    if not isinstance(kernel_size, int) or kernel_size % 2 != 1:
      raise UserError(
        f'kernel_size must be one odd whole number, got {kernel_size!r}'
      )
    return nn.Conv(
      features,
      (kernel_size, kernel_size),
      (stride, stride),
      kernel_size // 2,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      conv_general_dilated=self.mode.convolution(input_range),
      **{'use_bias': False, 'kernel_init': he_normal} | attributes,
    )

  def norm(self, **attributes) -> nn.Module:
    """Normalisation, scaled to the units' threshold."""
    normalization = NORMALIZATIONS[self.normalization]
    if issubclass(normalization, TEBatchNorm):
      attributes['time_steps'] = self.time_steps
    return normalization(
      threshold=self.unit.norm_threshold,
      axis_name=self.axis_name,
      **attributes,
    )

  def units(self, name: str | None = None) -> SpikingUnits:
    """Spiking units."""
    return SpikingUnits(self.unit, self.time_steps, self.dtype, name=name)

  def normalized_units(
    self, norm: nn.Module, x: Float[Array, 'folded *shape'], train: bool
  ) -> Float[Array, 'folded *shape']:
    """Spikes for the normalised `x`, which is not written to memory.

    The units are named after the normalisation: 'units1' after 'bn1'.
    """
    x = checkpoint_name(x, CURRENT)
    name = norm.name.replace('bn', 'units')
    units = self.units(name if name != norm.name else f'{name}_units')
    return units(x, norm.coefficients(x, not train))
