"""Runs blocks that are alike in one loop: depth then compiles quickly.

Each block keeps variables under its own name: they are stacked for the loop,
and the updated ones are unstacked.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax.errors import UserError
from mlf_jax.layers.spiking_units import (
  INITIAL_STATE,
  MEMBRANE_POTENTIAL,
  OBSERVED,
)


def apply_in_scan(
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
    names: names of the blocks, in order.
    block: one of them, unbound; its result has the shape and dtype of `x`.
    policy: policy for `jax.checkpoint`, says what is kept for the backward
      pass.
    x: input of the first block.
    train: passed to the blocks.

  Returns:
    The result of the last block. The collections 'batch_stats', 'observed' and
    those of the state are updated where they are mutable; what blocks put into
    others, such as 'intermediates', is lost.

  Raises:
    UserError: the variables of a block are not shaped like those of the first.
  """
  mutable = [
    collection
    for collection in (
      'batch_stats',
      MEMBRANE_POTENTIAL,
      INITIAL_STATE,
      OBSERVED,
    )
    if parent.is_mutable_collection(collection)
  ]

  # Without a policy a loop keeps an array once for every form in which it is
  # used, such as folded and not folded.
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
