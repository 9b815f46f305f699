"""Memory modes: the same numbers in less memory; the design of the step."""

import collections
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import UserError, models
from mlf_jax.models import convolution, memory
from mlf_jax.training import config as config_lib
from mlf_jax.training import footprint
from tests import quick
from tests.training import tiny

SHAPE = (2, 7, 9, 10, 2)


def network(time_steps=7, **attributes):
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


@pytest.mark.parametrize(('residual', 'time_steps'), [('ds', 7), ('plain', 2)])
def test_modes_give_the_same_spikes_and_gradients(residual, time_steps):
  x = jax.random.normal(jax.random.key(0), SHAPE)[:, :time_steps] * 3
  results = {}
  for mode in memory.MODES:
    model = network(time_steps, residual=residual, memory=mode)
    variables = quick.variables(model, x)
    call = loss_and_gradients(model, variables, x, quick.jit)
    results[mode] = call(variables['params'])
  (_, (logits, stats)), gradients = results['fastest']
  assert np.any(logits != 0)
  for mode in memory.MODES[1:]:
    (_, other), other_gradients = results[mode]
    # Counts of spikes decide them: one spike more or less would show.
    np.testing.assert_allclose(other[0], logits, rtol=1e-6, atol=1e-6)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      (other[1], other_gradients),
      (stats, gradients),
    )


def deep(**attributes):
  """Two and three blocks that are alike, and two projections."""
  return models.SpikingResNet((2, 1, 4), (4, 6, 4), 3, 2, **attributes)


@pytest.mark.parametrize(
  ('attributes', 'modes'),
  [
    ({'residual': 'ds'}, memory.MODES),
    ({'residual': 'plain'}, memory.MODES),
    # The sums that enter a block are no counts.
    ({'shortcut': 'norm'}, ('balanced',)),
  ],
)
def test_blocks_in_a_loop_give_the_same_numbers(x64, attributes, modes):
  """Loss, gradients and batch statistics."""
  x = jax.random.normal(jax.random.key(0), (2, 2, 9, 11, 2)) * 3
  model = deep(dtype='float64', **attributes)
  variables = quick.variables(model, x)
  expected = loss_and_gradients(model, variables, x, quick.jit)(
    variables['params']
  )
  for mode in modes:
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


@pytest.mark.parametrize('scan_blocks', [False, True])
def test_shard_map_gathers_the_gradient_from_every_device(scan_blocks):
  """Where JAX keeps account of what varies over the mesh, its default."""
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  x = jax.random.normal(jax.random.key(0), (8, 2, 9, 11, 2)) * 3
  model = deep(memory='balanced', scan_blocks=scan_blocks)
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


def test_modes_of_vgg_give_the_same_numbers(x64, flax_pools, small_vgg):
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3)) * 3
  # Thresholds so low that units fire everywhere.
  model = models.SpikingVGG(3, 2, thresholds=(0.05, 1.05), dtype='float64')
  variables = quick.variables(model, x)
  results = {}
  for mode in memory.MODES:
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
  for mode in memory.MODES[1:]:
    chex.assert_trees_all_close(
      results[mode], results['fastest'], rtol=1e-9, atol=1e-9
    )


def test_counts_are_kept_in_the_narrowest_dtype_that_holds_them():
  assert memory.narrowest(254) == jnp.uint8
  assert memory.narrowest(255) == jnp.uint16
  assert memory.narrowest(2**16 - 2) == jnp.uint16
  assert memory.narrowest(2**16 - 1) is None


@pytest.mark.parametrize('largest', [3, 254, 255, 65534, 65535])
def test_the_largest_count_comes_through_unchanged(largest):
  """On both sides of what each dtype holds."""
  x = jnp.full((1, 4, 4, 2), float(largest))
  kernel = jnp.ones((3, 3, 2, 2))

  def conv(x, kernel):
    return convolution.convolution(largest)(
      x,
      kernel,
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  y, pull = jax.vjp(conv, x, kernel)
  np.testing.assert_array_equal(y[0, 1, 1], 18 * largest)
  np.testing.assert_array_equal(memory.keep(x, largest), x)
  d_x, d_kernel = pull(jnp.ones_like(x))
  # The centre of the kernel sees all 16 pixels.
  np.testing.assert_array_equal(d_kernel[1, 1], 16 * largest)
  np.testing.assert_array_equal(d_x[0, 1, 1], 18)


@pytest.mark.parametrize(
  ('platform', 'waits'), [('cuda', True), ('cpu', False)]
)
def test_counts_are_widened_when_the_gradient_is_there(platform, waits):
  """Elsewhere than on a CPU, where XLA would widen them once, and keep that."""
  apply = convolution.convolution(3)

  def loss(x, kernel):
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    y = apply(x, kernel, (1, 1), 'SAME', dimension_numbers=dimensions)
    return jnp.square(y).sum()

  operands = jnp.ones((2, 5, 5, 4)), jnp.ones((3, 3, 4, 4))
  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*operands)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  barriers = re.findall('optimization_barrier .+ : (.+)', text)
  assert ('tensor<2x5x5x4xui8>, tensor<2x5x5x4xf32>' in barriers) == waits


def test_unknown_mode_is_named():
  with pytest.raises(UserError, match="memory 'least' is unknown"):
    network(memory='least')


@pytest.mark.parametrize('mode', memory.MODES)
def test_no_samples_give_no_logits(mode):
  """Neither timesteps that are written out nor those of a loop need any."""
  for time_steps in (2, 7):
    model = network(time_steps, memory=mode)
    x = jnp.zeros((0, time_steps, 8, 8, 2))
    variables = quick.variables(model, jnp.zeros((1, *x.shape[1:])))
    assert quick.jit(model.apply)(variables, x).shape == (0, 3)


def test_blocks_that_are_not_alike_are_named():
  x = jnp.zeros((1, 2, 8, 8, 2))
  model = deep(scan_blocks=True)
  variables = quick.variables(model, x)
  del variables['params']['layer1_1']['conv2']
  with pytest.raises(UserError, match='layer1_1 must have the variables that'):
    model.apply(variables, x)
  with pytest.raises(UserError, match='must be True or False'):
    deep(scan_blocks='False')


def test_less_is_kept_in_each_mode():
  """Of the design: what the compiled step takes, not how fast it is."""
  # Spikes of fewer timesteps come out of words; 'fastest' then takes no more
  # than the other modes in so small a network.
  x = jnp.zeros((4, 20, 16, 16, 2))
  taken = {}
  for mode in memory.MODES:
    model = network(20, memory=mode)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    # Of the parameters alone; the statistics are constants.
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), variables)
    call = loss_and_gradients(model, zeros, x, jax.jit)
    taken[mode] = (
      call.lower(zeros['params'])
      .compile(
        compiler_options={
          'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'
        }
      )
      .memory_analysis()
      .temp_size_in_bytes
    )
  assert taken['balanced'] < taken['fastest']
  assert taken['smallest'] < taken['fastest']


def equations(jaxpr, in_loop=False):
  """All equations with their inner ones, and whether a loop holds them."""
  for equation in jaxpr.eqns:
    yield equation, in_loop
    loops = in_loop or equation.primitive.name in ('scan', 'while')
    for inner in core.jaxprs_in_params(equation.params):
      yield from equations(inner, loops)


@pytest.mark.parametrize(('mode', 'passes'), [('fastest', 3), ('smallest', 4)])
def test_convolutions_are_few_and_outside_of_loops(mode, passes):
  """Each: forward, and two gradients; once more where blocks run again."""
  x = jnp.zeros((1, 8, 8, 8, 2))
  model = network(8, memory=mode)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), variables)
  call = loss_and_gradients(model, zeros, x)
  jaxpr = jax.make_jaxpr(call)(zeros['params']).jaxpr
  convolutions = [
    in_loop
    for equation, in_loop in equations(jaxpr)
    if equation.primitive.name == 'conv_general_dilated'
  ]
  of_blocks = 5  # Two a block, and a shortcut.
  # Nobody asks for the gradient of the input, nor is the stem run again.
  assert len(convolutions) == passes * of_blocks + 2
  assert not any(convolutions)


@pytest.mark.parametrize('mode', memory.MODES)
def test_depth_adds_blocks_to_loops_only(mode):
  """Of the design, instead of how long 110 layers take to compile."""
  x = jnp.zeros((1, 2, 8, 8, 2))
  of_depth = []
  for n in (3, 9):
    model = models.SpikingResNet(
      (n, n), (4, 6), 3, 2, memory=mode, scan_blocks=True
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), variables)
    call = loss_and_gradients(model, zeros, x)
    jaxpr = jax.make_jaxpr(call)(zeros['params']).jaxpr
    of_depth.append(
      collections.Counter(
        (equation.primitive.name, in_loop)
        for equation, in_loop in equations(jaxpr)
        # What stacks the variables and takes them apart.
        if equation.primitive.name
        not in ('broadcast_in_dim', 'slice', 'squeeze', 'reshape')
      )
    )
  assert of_depth[0] == of_depth[1]
  assert of_depth[0]['conv_general_dilated', True] > 0


def kept_by_loops(jaxpr):
  """Dtype and shape of all arrays that loops stack for the outside."""
  return [
    v.aval
    for equation, _ in equations(jaxpr)
    if equation.primitive.name == 'scan'
    for v, of_body in zip(
      equation.outvars, equation.params['jaxpr'].out_avals, strict=True
    )
    if v.aval.shape != of_body.shape
  ]


@pytest.mark.parametrize(
  ('mode', 'floats', 'counts'),
  [('fastest', 4, 0), ('balanced', 2, 2), ('smallest', 0, 1)],
)
def test_loops_keep_what_the_mode_says(mode, floats, counts):
  """Currents of a block, and its inputs of convolutions or of itself."""
  x = jnp.zeros((1, 2, 8, 8, 2))
  model = models.SpikingResNet((3,), (4,), 3, 2, memory=mode, scan_blocks=True)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), variables)
  call = loss_and_gradients(model, zeros, x)
  jaxpr = jax.make_jaxpr(call)(zeros['params']).jaxpr
  kept = [a for a in kept_by_loops(jaxpr) if a.shape[1:] == (2, 8, 8, 4)]
  assert sum(a.dtype == jnp.float32 for a in kept) == floats
  assert sum(a.dtype == jnp.uint8 for a in kept) == counts


def test_memory_is_predicted_from_smaller_batches():
  config = tiny.config()
  config.model.widths = (8, 8, 8)
  with jax.numpy_dtype_promotion('standard'):  # As optax needs.
    predicted = footprint.predict(config, 32)
    measured = footprint.measure(config, 32)
  np.testing.assert_allclose(predicted.bytes(32), measured, rtol=0.15)
  assert predicted.largest_batch(predicted.bytes(32) + 1) == 32
  assert predicted.largest_batch(0) == 0
  largest = footprint.largest_batch(config, measured, 32, predicted)
  assert abs(largest - 32) <= 0.15 * 32


@pytest.mark.parametrize(
  ('fixed', 'first', 'later', 'expected'),
  [
    # One prediction is enough, or another nearer to what fits.
    (0, 1000.0, None, 40),
    (0, 10.0, 20.0, 2000),
    # Less fits than was asked for; nothing does.
    (0, 4000.0, 4000.0, 10),
    (39000, 500.0, None, 0),
  ],
)
def test_largest_batch_is_predicted_near_what_fits(
  monkeypatch, fixed, first, later, expected
):
  sizes = []

  def predict(config, size):
    sizes.append(size)
    return footprint.Footprint(0, later)

  monkeypatch.setattr(footprint, 'predict', predict)
  predicted = footprint.Footprint(fixed, first)
  assert footprint.largest_batch(None, 40000, 32, predicted) == expected
  if later is None:
    assert not sizes
  else:
    assert sizes[-1] // 2 <= expected <= 2 * sizes[-1]


def test_search_for_the_largest_batch_ends(monkeypatch):
  """Even if predictions contradict each other, or nearly everything fits."""
  swings = lambda config, size: footprint.Footprint(0, 1e3 if size > 20 else 1)
  monkeypatch.setattr(footprint, 'predict', swings)
  swinging = footprint.Footprint(0, 1e3)
  assert footprint.largest_batch(None, 10_000, 64, swinging) >= 4
  tiny_samples = lambda config, size: footprint.Footprint(0, 1e-3)
  monkeypatch.setattr(footprint, 'predict', tiny_samples)
  assert footprint.largest_batch(None, 10**9, 8, tiny_samples(None, 8)) > 2**20


def test_a_prediction_needs_smaller_batches():
  with pytest.raises(UserError, match='at least 4 samples a device, got 3'):
    footprint.predict(config_lib.default(), 3)
