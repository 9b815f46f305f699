"""What a network keeps for its backward pass, and in how many bytes.

The inputs of convolutions in a spiking network are small whole numbers: sums
of spikes. A byte holds them exactly, a quarter of what float32 takes.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mlf_jax.errors import unknown

# fastest: whatever JAX keeps. balanced: inputs of convolutions as whole
# numbers. smallest: inputs of blocks alone, as whole numbers; the blocks are
# run again in the backward pass.
MODES = ('fastest', 'balanced', 'smallest')

_KEPT = 'kept'


def check(mode: str) -> None:
  """Raises `UserError` if there is no such mode."""
  if mode not in MODES:
    raise unknown('memory', mode, MODES)


def narrowest(largest: int) -> jnp.dtype | None:
  """The narrowest dtype that holds 0 to `largest` and one value more.

  That one never occurs, which `_settle` needs. None if no dtype is narrow.
  """
  for dtype in (jnp.uint8, jnp.uint16):
    if largest < jnp.iinfo(dtype).max:
      return jnp.dtype(dtype)
  return None


def counts_conv(largest: int) -> Callable:
  """A convolution for `nn.Conv(conv_general_dilated=...)` that keeps counts.

  Args:
    largest: its inputs are whole numbers from 0 to this.

  Returns:
    `jax.lax.conv_general_dilated` whose backward pass keeps the input in the
    narrowest dtype.
  """
  dtype = narrowest(largest)

  def conv(lhs, rhs, *args, **kwargs):
    def apply(lhs, rhs):
      return jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs)

    def backward(residuals, g):
      lhs, rhs = residuals
      lhs = lhs.astype(rhs.dtype)
      (d_lhs,) = jax.linear_transpose(lambda lhs: apply(lhs, rhs), lhs)(g)
      (d_rhs,) = jax.linear_transpose(lambda rhs: apply(lhs, rhs), rhs)(g)
      return d_lhs, d_rhs

    if dtype is None or dtype.itemsize >= lhs.dtype.itemsize:
      return apply(lhs, rhs)

    def forward(lhs, rhs):
      counts = _settle(lhs.astype(dtype))
      return apply(counts.astype(lhs.dtype), rhs), (counts, rhs)

    counted = jax.custom_vjp(apply)
    counted.defvjp(forward, backward)
    return counted(lhs, rhs)

  return conv


def _settle(counts):
  """Has an array of whole numbers written to memory where it is computed.

  XLA would otherwise keep the floats, and convert them where the whole numbers
  are used. On CPUs it looks through an optimisation barrier; it does not fuse
  a loop, and this one never runs: no count is the largest value of its dtype.
  """

  def loop(counts):
    never = jnp.iinfo(counts.dtype).max
    return jax.lax.while_loop(
      lambda c: c.reshape(-1)[0] == never, lambda c: c - 1, counts
    )

  return jax.lax.platform_dependent(
    counts, cpu=loop, default=jax.lax.optimization_barrier
  )


def of_counts(conv: Callable, largest: int) -> Callable:
  """A convolution module, its attributes bound, whose input is counts."""
  return functools.partial(conv, conv_general_dilated=counts_conv(largest))


def keep(x: jax.Array, largest: int | None) -> jax.Array:
  """Marks an array as what `run_again` keeps.

  Args:
    x: any floating array.
    largest: if not None, `x` holds whole numbers from 0 to this.

  Returns:
    `x`, made from what is kept.
  """
  dtype = None if largest is None else narrowest(largest)
  if dtype is None or dtype.itemsize >= x.dtype.itemsize:
    return checkpoint_name(x, _KEPT)

  @jax.custom_vjp
  def through(x):
    return checkpoint_name(_settle(x.astype(dtype)), _KEPT).astype(x.dtype)

  through.defvjp(lambda x: (through(x), None), lambda _, g: (g,))
  return through(x)


def run_again(module: type[nn.Module], static_argnums) -> type[nn.Module]:
  """A module class that keeps what it marks with `keep` alone."""
  return nn.remat(
    module,
    static_argnums=static_argnums,
    policy=jax.checkpoint_policies.save_only_these_names(_KEPT),
  )
