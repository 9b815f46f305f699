"""Blocks that are alike as one loop, so that depth costs little compilation.

The variables stay those of blocks with a name each: they are stacked for the
loop, and what it updates is taken apart again.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax.errors import UserError
from mlf_jax.models import layers


def run(
  parent: nn.Module,
  names: Sequence[str],
  block: nn.Module,
  policy: Callable,
  x: Float[Array, 'folded height width channel'],
  train: bool,
) -> Float[Array, 'folded height width channel']:
  """Applies blocks one after the other, in one `jax.lax.scan`.

  Args:
    parent: a bound module with variables for submodules of these names.
    names: the blocks, in their order.
    block: one of them, unbound; its result has the shape and dtype of `x`.
    policy: what is kept for the backward pass, as for `jax.checkpoint`.
    x: input of the first block.
    train: handed to the blocks.

  Returns:
    The result of the last block. The collections 'batch_stats' and
    'membrane_potential' of `parent` are updated where they are mutable; what
    blocks put into others, such as 'intermediates', is lost.

  Raises:
    UserError: the variables of a block are not shaped as those of the first.
  """
  mutable = [
    collection
    for collection in ('batch_stats', layers.MEMBRANE_POTENTIAL)
    if parent.is_mutable_collection(collection)
  ]

  # A loop keeps an array once for every form that it has, such as folded and
  # not; the policy says which one.
  @functools.partial(jax.checkpoint, policy=policy, prevent_cse=False)
  def body(x, variables):
    return block.apply(variables, x, train, mutable=mutable)

  of_blocks = [
    {
      collection: of_parent[name]
      for collection, of_parent in parent.variables.items()
      if name in of_parent
    }
    for name in names
  ]
  shapes = [jax.tree.map(jnp.shape, of_block) for of_block in of_blocks]
  for name, shape in zip(names, shapes, strict=True):
    if shape != shapes[0]:
      raise UserError(
        f'{name} must have the variables that {names[0]} has, in the same '
        f'shapes: {shapes[0]}, got {shape}'
      )
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_blocks)
  x, updated = jax.lax.scan(body, x, stacked)
  for i, name in enumerate(names):
    for collection, values in updated.items():
      of_block = jax.tree.map(lambda leaf, i=i: leaf[i], values)
      parent.put_variable(collection, name, of_block)
  return x
