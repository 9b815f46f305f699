"""Memory modes and loops over blocks: the same numbers in less memory."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import UserError, models
from mlf_jax.layers import MLF, memory_modes, narrow_integers
from mlf_jax.layers.convolution_vjp import conv_general_dilated
from tests import quick

SHAPE = (2, 2, 9, 10, 2)


def network(time_steps=2, **attributes):
  return models.SpikingResNet(
    (1, 1), (4, 6), 3, time_steps=time_steps, **attributes
  )


def loss_and_gradients(model, variables, x, jit=jax.jit):
  def loss_fn(params):
    logits, new = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    return jnp.square(logits - 1).sum(), (logits, new)

  return jit(jax.value_and_grad(loss_fn, has_aux=True))


@pytest.mark.parametrize(
  ('residual', 'normalization'),
  [('ds', 'tdbn'), ('plain', 'tdbn'), ('ms', 'tebn')],
)
def test_modes_give_the_same_spikes_and_gradients(residual, normalization):
  x = jax.random.normal(jax.random.key(0), SHAPE) * 3
  results = {}
  for mode in memory_modes.MODES:
    model = network(residual=residual, normalization=normalization, memory=mode)
    variables = quick.variables(model, x)
    call = loss_and_gradients(model, variables, x, quick.jit)
    results[mode] = call(variables['params'])
  (_, (logits, stats)), gradients = results['fastest']
  assert np.any(logits != 0)
  for mode in ('balanced', 'smallest'):
    (_, other), other_gradients = results[mode]
    # Counts of spikes decide them: one spike more or less would show.
    np.testing.assert_allclose(other[0], logits, rtol=1e-6, atol=1e-6)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      (other[1], other_gradients),
      (stats, gradients),
    )


def deep(**attributes):
  """A block of its own, a projection, and two blocks that are alike."""
  return models.SpikingResNet((1, 3), (4, 6), 3, 2, **attributes)


@pytest.mark.parametrize(
  ('attributes', 'mode'),
  [
    ({'residual': 'ds'}, 'smallest'),
    ({'residual': 'plain'}, 'fastest'),
    # The sums that enter a block are no counts.
    ({'shortcut': 'norm'}, 'balanced'),
  ],
)
def test_blocks_in_a_loop_give_the_same_numbers(x64, attributes, mode):
  """Loss, gradients and batch statistics."""
  x = jax.random.normal(jax.random.key(0), (2, 2, 9, 11, 2)) * 3
  model = deep(dtype='float64', **attributes)
  variables = quick.variables(model, x)
  expected = loss_and_gradients(model, variables, x, quick.jit)(
    variables['params']
  )
  looped = model.clone(memory=mode, scan_blocks=True)
  trained = loss_and_gradients(looped, variables, x, quick.jit)(
    variables['params']
  )
  chex.assert_trees_all_close(trained, expected, rtol=1e-10, atol=1e-10)
  assert all(np.any(g != 0) for g in jax.tree.leaves(expected[1]))


def test_blocks_in_a_loop_have_variables_and_state_of_their_own(x64):
  """Drawn alike, and membranes are carried from piece to piece."""
  x = jax.random.normal(jax.random.key(0), (2, 2, 9, 11, 2)) * 3
  results = []
  for scan_blocks in (False, True):
    model = deep(dtype='float64', scan_blocks=scan_blocks)
    variables = quick.variables(model, x)
    apply = quick.jit(
      functools.partial(model.apply, mutable=['membrane_potential'])
    )
    piece, carried = apply(variables, x)
    ended = apply({**variables, **carried}, x)
    results.append((variables, piece, carried, ended))
  chex.assert_trees_all_close(*results, rtol=1e-10, atol=1e-10)
  assert jnp.any(results[0][1] != 0)


def test_shard_map_gathers_the_gradient_from_every_device():
  """Where JAX keeps account of what varies over the mesh, its default."""
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  x = jax.random.normal(jax.random.key(0), (8, 2, 9, 11, 2)) * 3
  model = models.SpikingResNet(
    (2,), (4,), 3, 2, memory='balanced', scan_blocks=True
  )
  variables = quick.variables(model, x)

  def loss(params, x):
    logits = model.apply({**variables, 'params': params}, x)
    return jnp.square(logits - 1).sum()

  across = jax.shard_map(
    jax.grad(loss), mesh=mesh, in_specs=(P(), P('data')), out_specs=P()
  )
  chex.assert_trees_all_close(
    quick.jit(across)(variables['params'], x),
    quick.jit(jax.grad(loss))(variables['params'], x),
    rtol=1e-4,
    atol=1e-4,
  )


def test_modes_of_vgg_give_the_same_numbers(x64, flax_pools):
  x = jax.random.normal(jax.random.key(0), (4, 6, 6, 3)) * 3
  # Thresholds so low that units fire everywhere.
  model = models.SpikingVGG(
    3, 2, MLF((0.05, 1.05)), dtype='float64', widths=((4, 4), (6,))
  )
  variables = quick.variables(model, x)
  results = {}
  for mode in memory_modes.MODES:
    of_mode = model.clone(memory=mode)

    def loss_fn(params, model=of_mode):
      logits, _ = model.apply(
        {**variables, 'params': params},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(2)},
      )
      return jnp.square(logits - 1).sum(), logits

    results[mode] = quick.jit(jax.grad(loss_fn, has_aux=True))(
      variables['params']
    )
  gradients, logits = results['fastest']
  assert jnp.any(gradients['feature0_conv']['kernel'] != 0)
  assert jnp.unique(logits).size > 1
  for mode in ('balanced', 'smallest'):
    chex.assert_trees_all_close(
      results[mode], results['fastest'], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
  ('value_range', 'dtype'),
  [
    ((0, 254), jnp.uint8),
    ((0, 255), jnp.uint16),
    ((0, 2**16 - 2), jnp.uint16),
    ((0, 2**16 - 1), None),
    ((-1, 1), jnp.int8),
    ((-128, 126), jnp.int8),
    ((-1, 127), jnp.int16),
    ((-1, 2**15), None),
  ],
)
def test_numbers_are_kept_in_the_narrowest_dtype(value_range, dtype):
  assert narrow_integers.narrowest_dtype(value_range) == dtype


@pytest.mark.parametrize('largest', [254, 255, 65534, 65535, -128])
def test_the_largest_count_comes_through_unchanged(largest):
  """On both sides of what each dtype holds."""
  value_range = (min(largest, 0), max(largest, 0))
  x = jnp.full((1, 4, 4, 2), float(largest))
  kernel = jnp.ones((3, 3, 2, 2))

  def conv(x, kernel):
    return conv_general_dilated(value_range)(
      x,
      kernel,
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  y, pull = jax.vjp(conv, x, kernel)
  np.testing.assert_array_equal(y[0, 1, 1], 18 * largest)
  kept = narrow_integers.narrow_block_input(x, value_range)
  np.testing.assert_array_equal(kept, x)
  d_x, d_kernel = pull(jnp.ones_like(x))
  # The centre of the kernel sees all 16 pixels.
  np.testing.assert_array_equal(d_kernel[1, 1], 16 * largest)
  np.testing.assert_array_equal(d_x[0, 1, 1], 18)


def test_no_samples_give_no_logits():
  """Neither timesteps that are written out nor those of a loop need any."""
  for time_steps in (2, 7):
    model = network(time_steps, memory='smallest')
    x = jnp.zeros((0, time_steps, 8, 8, 2))
    variables = quick.variables(model, jnp.zeros((1, *x.shape[1:])))
    assert quick.jit(model.apply)(variables, x).shape == (0, 3)


def test_blocks_that_are_not_alike_are_named():
  x = jnp.zeros((1, 2, 8, 8, 2))
  model = deep(scan_blocks=True)
  variables = quick.variables(model, x)
  del variables['params']['layer2_2']['conv2']
  with pytest.raises(UserError, match='layer2_2 must have the variables that'):
    model.apply(variables, x)
