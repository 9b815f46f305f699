"""Memory modes: what a network keeps for its backward pass."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from mlf_jax.layers import convolution_vjp, narrow_integers
from mlf_jax.layers.normalization import STATISTICS
from mlf_jax.layers.spiking_units import Range
from mlf_jax.registry import Registry, instance_of


@dataclasses.dataclass(frozen=True)
class MemoryMode:
  """Decides what is kept for the backward pass; the numbers are the same.

  Attributes:
    narrow_inputs: inputs of convolutions are kept as whole numbers in as few
      bytes as hold them.
    rematerialise: only inputs of blocks are kept; the backward pass runs the
      blocks again.
  """

  narrow_inputs: bool
  rematerialise: bool

  def convolution(self, value_range: Range | None) -> Callable:
    """Convolution for `nn.Conv(conv_general_dilated=...)`.

    Args:
      value_range: range of the whole numbers that the input holds, or None.
    """
    if not self.narrow_inputs:
      value_range = None
    return convolution_vjp.conv_general_dilated(value_range)

  def block_input(self, x: jax.Array, value_range: Range | None) -> jax.Array:
    """Input of a block, from what is kept of it."""
    if self.rematerialise:
      x = narrow_integers.narrow_block_input(x, value_range)
    return x

  def block(
    self, target: Callable, static_argnums: tuple[int, ...]
  ) -> Callable:
    """Module class, or method of one, whose backward pass the mode decides.

    Args:
      target: the class or method.
      static_argnums: positions of arguments that are no arrays, `self` counted.
    """
    if not self.rematerialise:
      return target
    return nn.remat(
      target, static_argnums=static_argnums, policy=self.scan_policy
    )

  @property
  def scan_policy(self) -> Callable:
    """Policy for `jax.checkpoint` of a block in a loop over blocks."""
    names = (narrow_integers.CONVOLUTION_INPUT, narrow_integers.CURRENT)
    if self.rematerialise:
      names = (narrow_integers.BLOCK_INPUT,)
    # Statistics are tiny. Without them tdBN would pass over the current again
    # and, on several devices, communicate once more.
    return jax.checkpoint_policies.save_only_these_names(*names, STATISTICS)


MODES: Registry[MemoryMode] = Registry('memory', instance_of(MemoryMode))
# Whatever JAX keeps; in a loop over blocks currents and convolution inputs.
MODES['fastest'] = MemoryMode(narrow_inputs=False, rematerialise=False)
MODES['balanced'] = MemoryMode(narrow_inputs=True, rematerialise=False)
MODES['smallest'] = MemoryMode(narrow_inputs=True, rematerialise=True)
MODES.seal()
