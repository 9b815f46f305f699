"""Whole numbers kept for the backward pass in as few bytes as hold them.

Inputs of convolutions in a spiking network are small whole numbers: sums of
spikes. One byte holds them exactly, a quarter of what float32 takes.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mlf_jax.layers.spiking_units import Range
from mlf_jax.neuron import materialise

# Names of the arrays that a policy of `jax.checkpoint` may keep.
BLOCK_INPUT = 'input of a block'
CONVOLUTION_INPUT = 'input of a convolution'
CURRENT = 'current'


def narrowest_dtype(value_range: Range) -> jnp.dtype | None:
  """Narrowest integer dtype that holds a range and one larger number.

  The larger number never occurs, as `materialise` requires. None if two bytes
  are too few.
  """
  low, high = value_range
  for dtype in (jnp.uint8, jnp.int8, jnp.uint16, jnp.int16):
    limits = jnp.iinfo(dtype)
    if limits.min <= low and high < limits.max:
      return jnp.dtype(dtype)
  return None


def narrow(x: jax.Array, value_range: Range | None, name: str) -> jax.Array:
  """Converts an array to the narrowest dtype, to be kept.

  Args:
    x: any floating array.
    value_range: range of the whole numbers that `x` holds; None if `x` holds
      other numbers.
    name: name for policies of `jax.checkpoint`.

  Returns:
    The same numbers, in the dtype of `x` if none is narrower.
  """
  dtype = None if value_range is None else narrowest_dtype(value_range)
  if dtype is not None and dtype.itemsize < x.dtype.itemsize:
    x = materialise(x.astype(dtype))
  return checkpoint_name(x, name)


def widen(
  kept: jax.Array, g: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
  """Converts a narrowed array back, in the backward pass.

  On GPUs, XLA writes the input of a convolution to memory. If the conversion
  were the one of the forward pass, XLA would keep its result until the backward
  pass, so it has to wait for the cotangent.

  Args:
    kept: array from `narrow`.
    g: cotangent that has to be there before anything is widened.
    dtype: dtype to convert to.

  Returns:
    `kept` in that dtype, and `g`.
  """
  if kept.dtype != dtype:
    kept, g = jax.lax.platform_dependent(
      kept,
      g,
      cpu=lambda *arrays: arrays,
      default=lambda *arrays: jax.lax.optimization_barrier(arrays),
    )
  return kept.astype(dtype), g


def narrow_block_input(x: jax.Array, value_range: Range | None) -> jax.Array:
  """Narrows the input of a block and widens it again.

  A policy that keeps `BLOCK_INPUT` then keeps the narrow array.

  Args:
    x: any floating array.
    value_range: range of the whole numbers that `x` holds, or None.

  Returns:
    `x`.
  """
  if value_range is None:
    return checkpoint_name(x, BLOCK_INPUT)

  def convert(x):
    return narrow(x, value_range, BLOCK_INPUT).astype(x.dtype)

  through = jax.custom_vjp(convert)
  # `convert` and not `through` in the forward pass: a policy would not see the
  # name inside a custom_vjp.
  through.defvjp(lambda x: (convert(x), None), lambda _, g: (g,))
  return through(x)
