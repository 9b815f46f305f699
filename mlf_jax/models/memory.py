"""What a network keeps for its backward pass, and in how many bytes.

The inputs of convolutions in a spiking network are small whole numbers: sums
of spikes. A byte holds them exactly, a quarter of what float32 takes.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mlf_jax.errors import unknown
from mlf_jax.norm import STATISTICS
from mlf_jax.settle import settle

# fastest: whatever JAX keeps (in a loop over blocks: currents and inputs of
# convolutions). balanced: inputs of convolutions as whole numbers. smallest:
# inputs of blocks alone, as whole numbers; the blocks are run again in the
# backward pass.
MODES = ('fastest', 'balanced', 'smallest')

# Names of what may be kept.
INPUT_OF_BLOCK = 'input of a block'
INPUT_OF_CONVOLUTION = 'input of a convolution'
CURRENT = 'current'


def check(mode: str) -> None:
  """Raises `UserError` if there is no such mode."""
  if mode not in MODES:
    raise unknown('memory', mode, MODES)


def policy(mode: str) -> Callable:
  """For `jax.checkpoint`: what a mode keeps of a block, by name.

  In a loop over blocks for every mode, outside of it for 'smallest' alone. An
  input of a convolution is narrow or not before it gets its name.
  """
  names = (INPUT_OF_CONVOLUTION, CURRENT)
  if mode == 'smallest':
    names = (INPUT_OF_BLOCK,)
  # Per channel, so next to nothing; without them tdBN would go over the current
  # and, on several devices, ask the others once more.
  return jax.checkpoint_policies.save_only_these_names(*names, STATISTICS)


def narrowest(largest: int) -> jnp.dtype | None:
  """The narrowest dtype that holds 0 to `largest` and one value more.

  That one never occurs, which `settle` needs. None if no dtype is narrow.
  """
  for dtype in (jnp.uint8, jnp.uint16):
    if largest < jnp.iinfo(dtype).max:
      return jnp.dtype(dtype)
  return None


def narrowed(x: jax.Array, largest: int | None, name: str) -> jax.Array:
  """An array in the narrowest dtype, to be kept.

  Args:
    x: any floating array.
    largest: if not None, `x` holds whole numbers from 0 to this.
    name: what `policy` calls it.

  Returns:
    The same numbers, in the dtype of `x` if none is narrower.
  """
  dtype = None if largest is None else narrowest(largest)
  if dtype is not None and dtype.itemsize < x.dtype.itemsize:
    x = settle(x.astype(dtype))
  return checkpoint_name(x, name)


def widened(
  kept: jax.Array, g: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
  """What was narrowed, in the backward pass.

  For GPUs, XLA writes the input of a convolution to memory; as the same
  conversion, it would keep that of the forward pass until now.

  Args:
    kept: what `narrowed` returned.
    g: cotangent that is to be there before anything is widened.
    dtype: dtype to go back to.

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


def keep(x: jax.Array, largest: int | None) -> jax.Array:
  """Marks the input of a block as what 'smallest' keeps.

  Args:
    x: any floating array.
    largest: if not None, `x` holds whole numbers from 0 to this.

  Returns:
    `x`, made from what is kept.
  """
  if largest is None:
    return checkpoint_name(x, INPUT_OF_BLOCK)

  def make(x):
    return narrowed(x, largest, INPUT_OF_BLOCK).astype(x.dtype)

  through = jax.custom_vjp(make)
  # Not `through` inside: `policy` would not see the name.
  through.defvjp(lambda x: (make(x), None), lambda _, g: (g,))
  return through(x)


def run_again(module: type[nn.Module], static_argnums) -> type[nn.Module]:
  """A module class, or method of one, of which 'smallest' keeps its part."""
  return nn.remat(
    module, static_argnums=static_argnums, policy=policy('smallest')
  )
