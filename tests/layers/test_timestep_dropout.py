"""Dropout per timestep: its mean, and the same mask on any devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax.layers import TimestepDropout
from tests import quick


def test_dropout_differs_between_timesteps_and_keeps_the_mean():
  dropout = TimestepDropout(0.25, time_steps=3)
  x = jnp.ones((3 * 2, 4000))
  y = dropout.apply({}, x, False, rngs={'dropout': jax.random.key(0)})
  masks = np.asarray(y).reshape(3, 2, -1)
  np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
  np.testing.assert_allclose(masks.mean(-1), 1, atol=0.05)
  assert np.any(masks[0] != masks[1]) and np.any(masks[1] != masks[2])


def test_dropout_of_eight_devices_is_that_of_one():
  x = jnp.ones((3, 16, 10))
  key = jax.random.key(0)

  def drop(axis_name, x):
    dropout = TimestepDropout(0.25, 3, axis_name)
    folded = x.reshape((-1, x.shape[-1]))
    return dropout.apply({}, folded, False, rngs={'dropout': key}).reshape(
      x.shape
    )

  sharded = jax.shard_map(
    functools.partial(drop, 'data'),
    mesh=jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,)),
    in_specs=P(None, 'data'),
    out_specs=P(None, 'data'),
    check_vma=False,
  )
  alone = quick.jit(functools.partial(drop, None))
  np.testing.assert_array_equal(quick.jit(sharded)(x), alone(x))
