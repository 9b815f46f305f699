"""Tells XLA what to write to memory, and `shard_map` what varies alike."""

import jax
import jax.numpy as jnp


def materialise(counts: jax.Array) -> jax.Array:
  """Writes whole numbers to memory where they are computed.

  XLA would otherwise compute them again wherever they are used, and keep the
  wider arrays that they are computed from. On CPUs XLA looks through an
  optimisation barrier, but it does not fuse across a loop; the loop used here
  never runs.

  Args:
    counts: any shape and integer dtype, nowhere the largest value of the dtype.

  Returns:
    The same numbers.
  """

  def loop(counts):
    # As a Python integer, the largest uint32 would not be accepted.
    never = counts.dtype.type(jnp.iinfo(counts.dtype).max)
    return jax.lax.while_loop(
      # The array may be empty.
      lambda c: (c.reshape(-1)[:1] == never).any(),
      lambda c: c - 1,
      counts,
    )

  return jax.lax.platform_dependent(
    counts, cpu=loop, default=jax.lax.optimization_barrier
  )


def on_all_cores(counter: jax.Array) -> jax.Array:
  """Keeps XLA for CPUs from running a loop on a single core.

  XLA takes a loop that reads and writes slices for a small one, whatever the
  size of the slices, and makes one call of it, except where the loop sorts.

  Args:
    counter: the whole number that the loop counts in, where it is used.

  Returns:
    The same number.
  """
  sort = lambda counter: jax.lax.sort(jnp.stack([counter, counter]))[0]
  return jax.lax.platform_dependent(
    counter, cpu=sort, default=lambda counter: counter
  )


def vary_alike(*trees):
  """Marks arrays as varying over the mesh axes that any of them varies over.

  Inside `shard_map` the carry of a loop and a custom backward pass must vary
  over the same axes as the arrays that flow into them. Elsewhere the arrays
  are returned as they are.
  """
  varying = lambda a: jax.typeof(a).manual_axis_type.varying
  union = frozenset().union(*map(varying, jax.tree.leaves(trees)))
  return jax.tree.map(
    lambda a: jax.lax.pcast(a, tuple(union - varying(a)), to='varying'), trees
  )
