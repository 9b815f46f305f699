"""Packs a state into one array of bytes, and unpacks it."""

import hashlib
import json
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

State = TypeVar('State')
# Maps the name of each leaf to its dtype and shape, in the order of the bytes.
Layout = dict[str, str]


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Leaves of a pytree with their paths as names."""
  # Only paths in the long form, `.params['conv']`, are always distinct.
  return [
    (jax.tree_util.keystr(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def digest(content: np.ndarray, layout: Layout, metrics: Any) -> str:
  """SHA-256 of packed bytes, their layout and the metrics beside them."""
  sha256 = hashlib.sha256(content)
  sha256.update(json.dumps([list(layout.items()), metrics]).encode())
  return sha256.hexdigest()


def pack(state: Any) -> tuple[Layout, np.ndarray]:
  """Copies a state to the host, into one array of bytes."""
  layout, parts = {}, []
  for name, leaf in named_leaves(state):
    layout[name] = describe(leaf)
    # A NumPy view of the leaf itself would stay with the leaf, and on a CPU the
    # buffer could no longer be donated. A shard is a separate array.
    if leaf.is_fully_replicated:
      leaf = leaf.addressable_data(0)
    parts.append(np.asarray(leaf).reshape(-1).view(np.uint8))
  return layout, np.concatenate(parts)


def unpack(template: State, layout: Layout, content: np.ndarray) -> State:
  """Puts bytes into a template's structure and on its devices."""
  wanted = dict(named_leaves(template))
  restored, start = {}, 0
  for name in layout:
    like = wanted[name]
    stop = start + math.prod(like.shape) * like.dtype.itemsize
    array = content[start:stop].view(like.dtype).reshape(like.shape)
    restored[name] = _to_device(array, like)
    start = stop
  leaves = [restored[name] for name in wanted]
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _to_device(array: np.ndarray, like: Any) -> jax.Array:
  """Places an array like another one, in a buffer that can be donated."""
  # An uncommitted array stays uncommitted, so that jit may still move it.
  if like.sharding is None or not getattr(like, 'committed', True):
    placed = jnp.asarray(array)
  else:
    placed = jax.make_array_from_callback(
      array.shape, like.sharding, lambda index: array[index]
    )
  # On a CPU the buffer may belong to NumPy, and JAX must not reuse it.
  return jnp.copy(placed)


def describe(leaf: jax.Array | jax.ShapeDtypeStruct) -> str:
  """Dtype and shape of a leaf, such as `float32[3, 3]`."""
  return f'{leaf.dtype}{list(leaf.shape)}'
