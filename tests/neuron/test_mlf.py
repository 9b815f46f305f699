"""The MLF neuron against the reference data, closed forms and invariants."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import UserError, mlf, neuron
from mlf_jax.neuron import MLFParams, MLFState, surrogate
from tests import golden_data, quick


def data_mesh():
  return jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))


THRESHOLDS = (0.6, 1.6, 2.6)


def fold(params, x, state=None):
  """`step` folded over time: what `run` has to equal."""
  if state is None:
    state = neuron.init_state(params, x.shape[1:], x.dtype)
  spikes = []
  for x_t in x:
    state, spikes_t = neuron.step(params, state, x_t)
    spikes.append(spikes_t)
  return state, jnp.stack(spikes)


def scanned(params, x, state):
  """The same as JAX differentiates it without writing every timestep out."""
  return jax.lax.scan(functools.partial(neuron.step, params), state, x)


def scanned_from_rest(params, x):
  return scanned(params, x, neuron.init_state(params, x.shape[1:], x.dtype))


def current(shape, seed=0, dtype=jnp.float32):
  # Of NumPy: there is nothing to compile for every shape.
  generator = np.random.default_rng(seed)
  return jnp.asarray(1.5 * generator.standard_normal(shape), dtype)


def state_of(params, shape, seed=9, dtype=jnp.float32):
  u = current((params.num_levels, *shape), seed, dtype)
  return MLFState(u)


def pulled_back(simulate, x, g):
  """Spikes, and the cotangent of the current for `g` of them."""
  spikes, pull = jax.vjp(simulate, x)
  return spikes, pull(g)[0]


@pytest.mark.parametrize('simulate', [neuron.run, fold])
@pytest.mark.parametrize('time', [4, 10])
@pytest.mark.parametrize('levels', [1, 2, 3])
def test_reference_spikes_and_gradient(x64, levels, time, simulate):
  data = golden_data.load(f'mlf_unit_K{levels}_T{time}')
  params = MLFParams(THRESHOLDS[:levels])
  run = functools.partial(pulled_back, lambda x: simulate(params, x)[1])
  spikes, dx = jax.jit(run)(data['x'], data['g'])
  np.testing.assert_array_equal(spikes, data['spikes'])
  np.testing.assert_allclose(dx, data['dx'], atol=1e-12)


class StepTest(chex.TestCase):
  """One timestep, with and without jit."""

  @chex.variants(with_jit=True, without_jit=True)
  def test_equations(self):
    params = MLFParams((0.5, 1.0), decay=0.5, width=0.5)
    state = MLFState(jnp.array([[0.4, 0.6], [0.4, 0.6]]))
    state, spikes = self.variant(neuron.step)(
      params, state, jnp.array([0.5, 0.8])
    )
    # The second unit's first level fired (0.6 > 0.5), so it is reset.
    expected = [[0.7, 0.8], [0.7, 1.1]]
    np.testing.assert_allclose(state.membrane_potential, expected, rtol=1e-6)
    np.testing.assert_array_equal(spikes, [1.0, 2.0])

  @chex.variants(with_jit=True, without_jit=True)
  def test_threshold_itself_does_not_fire(self):
    params = MLFParams((1.0,), decay=0.5)
    state = neuron.init_state(params, (2,))
    _, spikes = self.variant(neuron.step)(
      params, state, jnp.array([1.0, np.nextafter(np.float32(1), 2)])
    )
    np.testing.assert_array_equal(spikes, [0.0, 1.0])


@pytest.mark.parametrize(
  ('time', 'kind'),
  [*((4, kind) for kind in surrogate.SURROGATES), (11, 'rectangular')],
)
def test_gradient_equals_autodiff_of_step(x64, time, kind):
  """With respect to current, initial state, thresholds and decay."""
  params = MLFParams(THRESHOLDS, 0.4, 1.0, kind)
  x = current((time, 40), dtype=jnp.float64)
  state = state_of(params, (40,), dtype=jnp.float64)

  def loss(simulate, params, x, state):
    state, spikes = simulate(params, x, state)
    weights = current(spikes.shape, 3, jnp.float64)
    return (weights * jnp.square(spikes)).sum() + jnp.square(
      state.membrane_potential
    ).sum()

  gradients = [
    jit(jax.grad(functools.partial(loss, f), argnums=(0, 1, 2)))(
      params, x, state
    )
    for f, jit in ((neuron.run, jax.jit), (scanned, quick.jit))
  ]
  chex.assert_trees_all_close(*gradients, rtol=1e-12, atol=1e-12)
  for leaf in jax.tree.leaves(gradients[0]):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@pytest.mark.parametrize(
  ('levels', 'time', 'dtype'),
  [
    # On both sides of where timesteps are written out, forward (16, or 32 bits
    # of spikes) and backward (6).
    *((levels, time, 'float64') for levels in (1, 3) for time in (1, 6, 7, 40)),
    (2, 6, 'float64'),
    (4, 7, 'float64'),
    (5, 13, 'float64'),
    (1, 7, 'float32'),
    (3, 4, 'float32'),
    (3, 40, 'float32'),
    (2, 6, 'bfloat16'),
    (3, 40, 'bfloat16'),
  ],
)
def test_run_equals_step_over_time(levels, time, dtype):
  """Spikes and state exactly, gradients to rounding; an odd shape."""
  with jax.enable_x64(dtype == 'float64'):
    kind = surrogate.SURROGATES[levels % len(surrogate.SURROGATES)]
    params = MLFParams(tuple(0.6 + np.arange(levels)), 0.4, surrogate=kind)
    shape = (3, 5, 7)
    wide = neuron.membrane_dtype(jnp.dtype(dtype))
    x = current((time, *shape), dtype=dtype)
    state = state_of(params, shape, dtype=wide)
    weights = current(x.shape, 3, dtype)

    def pulled(simulate, jit):
      @jit
      def both(x, state):
        results, pull = jax.vjp(functools.partial(simulate, params), x, state)
        return results, pull((results[0], weights))

      return both(x, state)

    results, gradients = pulled(neuron.run, jax.jit)
    # What to expect needs no fast program.
    expected, of_step = pulled(scanned, quick.jit)
    chex.assert_trees_all_equal(results, expected)
    spikes = np.asarray(results[1])
    assert spikes.dtype == dtype
    assert 0 < spikes.sum() < spikes.size * levels
    tolerance = {'float64': 1e-12, 'float32': 1e-5, 'bfloat16': 1e-2}[dtype]
    gradients, of_step = jax.tree.map(
      lambda a: np.asarray(a).astype(wide), (gradients, of_step)
    )
    chex.assert_trees_all_close(
      gradients, of_step, rtol=tolerance, atol=tolerance
    )
    assert all(np.any(g != 0) for g in jax.tree.leaves(gradients))


def test_threshold_and_decay_gradients_closed_form(x64):
  """One level, two timesteps, no spike at the first: by hand."""
  params = MLFParams((1.0,), decay=0.5)
  x = jnp.array([[0.8], [0.7]])  # u = 0.8, 1.1; both inside the window.
  run = functools.partial(pulled_back, lambda p: neuron.run(p, x)[1])
  spikes, gradient = jax.jit(run)(params, np.array([[2.0], [3.0]]))
  np.testing.assert_array_equal(spikes[:, 0], [0, 1])
  # d[2] = 3. dL/dV = -h (g[1] - d[2] decay u[1]) - h g[2]
  np.testing.assert_allclose(
    gradient.thresholds, [-(2 - 3 * 0.5 * 0.8) - 3], rtol=1e-12
  )
  # dL/d(decay) = d[2] u[1] (1 - o[1])
  np.testing.assert_allclose(gradient.decay, 3 * 0.8, rtol=1e-12)


@pytest.mark.parametrize('time', [2, 40])
def test_two_halves_equal_the_whole(time):
  params = MLFParams()
  x = current((time, 100))
  run = jax.jit(neuron.run)
  whole = run(params, x)
  state, first = run(params, x[: time // 2])
  state, second = run(params, x[time // 2 :], state)
  chex.assert_trees_all_equal(whole, (state, jnp.concatenate([first, second])))


# Numbers of spikes that just fit into 8, 16 and 32 bits, and do not.
@pytest.mark.parametrize(
  ('levels', 'time'), [(1, 7), (1, 8), (3, 7), (3, 15), (3, 16)]
)
def test_silent_and_saturated_units(levels, time):
  thresholds = tuple(0.6 + np.arange(levels))
  x = jnp.stack([jnp.full((time,), 0.1), jnp.full((time,), 9.0)], 1)
  spikes = jax.jit(functools.partial(mlf, thresholds=thresholds))(x)
  np.testing.assert_array_equal(spikes[:, 0], np.zeros(time))
  np.testing.assert_array_equal(spikes[:, 1], np.full(time, levels))


def test_integrate_and_fire_without_leak():
  """decay = 1: a constant current of 0.25 crosses 0.6 every third step."""
  spikes = mlf(jnp.full((9,), 0.25), thresholds=(0.6,), decay=1.0)
  np.testing.assert_array_equal(spikes, [0, 0, 1] * 3)


def test_windows_of_the_levels_tile():
  """A first-step gradient is 1 in (0.1, 3.1) and 0 outside, whatever level."""
  u = jnp.linspace(-1, 4, 1001) + 1e-3
  gradient = jax.jit(jax.grad(lambda x: mlf(x[None]).sum()))(u)
  np.testing.assert_array_equal(gradient, (u > 0.1) & (u < 3.1))


def test_vmap_over_inputs_and_parameters():
  x = current((6, 7, 20))
  mapped = jax.jit(jax.vmap(mlf, in_axes=1, out_axes=1))
  np.testing.assert_array_equal(mapped(x), jax.jit(mlf)(x))
  params = [MLFParams((0.5, 1.5), 0.1), MLFParams((0.7, 1.7), 0.9)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  spikes_of = lambda p: neuron.run(p, x)[1]
  mapped = jax.jit(jax.vmap(spikes_of))(stacked)
  alone = jax.jit(spikes_of)
  for i, p in enumerate(params):
    np.testing.assert_array_equal(mapped[i], alone(p))


def test_checkpoint_leaves_gradient_unchanged():
  x = current((6, 50))
  loss = lambda f, x: (f(x) * x).sum()
  np.testing.assert_array_equal(
    jax.jit(jax.grad(functools.partial(loss, jax.checkpoint(mlf))))(x),
    jax.jit(jax.grad(functools.partial(loss, mlf)))(x),
  )


@pytest.mark.parametrize(('time', 'check_vma'), [(4, True), (11, False)])
def test_shard_map(check_vma, time):
  mesh = data_mesh()
  x = current((time, 16, 5))
  g = current((time, 16, 5), 1)
  run = functools.partial(pulled_back, mlf)
  spec = P(None, 'data')
  sharded = jax.jit(
    jax.shard_map(
      run,
      mesh=mesh,
      in_specs=(spec, spec),
      out_specs=(spec, spec),
      check_vma=check_vma,
    )
  )
  chex.assert_trees_all_equal(sharded(x, g), jax.jit(run)(x, g))


def test_shard_map_threshold_gradient():
  """A learned threshold, replicated, gathers from every device."""
  mesh = data_mesh()
  x = current((4, 16))
  loss = lambda p, x: (neuron.run(p, x)[1] * x).sum()
  sharded = jax.jit(
    jax.shard_map(
      jax.grad(loss), mesh=mesh, in_specs=(P(), P(None, 'data')), out_specs=P()
    )
  )
  params = jax.tree.map(jnp.float32, MLFParams())
  chex.assert_trees_all_close(
    sharded(params, x), jax.jit(jax.grad(loss))(params, x), rtol=1e-5
  )


def test_bfloat16_current_keeps_float32_membranes():
  params = MLFParams()
  x = current((4, 8), dtype=jnp.bfloat16)
  run = jax.jit(neuron.run)
  state, spikes = run(params, x)
  assert state.membrane_potential.dtype == jnp.float32
  assert spikes.dtype == jnp.bfloat16
  wide = run(params, x.astype(jnp.float32))
  chex.assert_trees_all_equal(state, wide[0])
  gradient = jax.eval_shape(jax.grad(lambda x: mlf(x).sum()), x)
  assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'thresholds': (1.6, 0.6)}, r'strictly increasing, got \[1.6, 0.6\]'),
    ({'thresholds': (0.6, 0.6)}, 'strictly increasing'),
    ({'thresholds': (-0.6, 0.6)}, r'positive, got \[-0.6, 0.6\]'),
    ({'thresholds': (float('nan'),)}, 'positive'),
    ({'thresholds': ()}, 'one value per level'),
    ({'thresholds': 'high'}, 'must be numeric'),
    ({'decay': 1.01}, r'decay must lie in \[0, 1\], got 1.01'),
    ({'decay': -0.1}, 'decay must lie in'),
    ({'decay': (0.1, 0.2)}, 'one number'),
    ({'width': 0.0}, 'width must be a positive number, got 0.0'),
    ({'width': float('nan')}, 'width must be a positive'),
    ({'surrogate': 'rectangle'}, "did you mean 'rectangular'"),
    ({'surrogate': jnp.tanh}, 'goes into a unit of your own, .*custom_jvp'),
  ],
)
def test_mistakes(arguments, message):
  with pytest.raises(UserError, match=message) as error:
    MLFParams(**arguments)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('thresholds', 'fault'),
  [((0.6, 1.2), 'overlap'), ((0.4, 1.4, 2.4, 3.9), 'gaps')],
)
def test_windows_that_do_not_tile_are_warned_of(thresholds, fault):
  with pytest.warns(UserWarning, match=fault):
    MLFParams(thresholds)


def test_tuple_of_traced_thresholds_is_a_vector_of_them():
  x = current((4, 50))
  gradient = jax.jit(jax.grad(lambda v: mlf(x, v).sum()))
  apart = gradient((0.6, 1.6, 2.6))
  together = gradient(jnp.array([0.6, 1.6, 2.6]))
  np.testing.assert_array_equal(jnp.stack(apart), together)


def test_only_timesteps_have_to_be_fixed_in_an_exported_program():
  def exported(shape):
    sizes = export.symbolic_shape(shape)
    x = jax.ShapeDtypeStruct(sizes, jnp.float32)
    return export.export(jax.jit(mlf))(x)

  x = jax.random.normal(jax.random.key(0), (3, 5, 2))
  np.testing.assert_array_equal(exported('3, b, c').call(x), mlf(x))
  with pytest.raises(UserError, match='must be a fixed number, got t of a'):
    exported('t, b')


def test_state_of_another_shape_or_dtype_is_refused():
  params = MLFParams()
  with pytest.raises(UserError, match=r'of shape \(3, 9\), but this'):
    neuron.run(params, current((4, 8)), neuron.init_state(params, (9,)))
  with pytest.raises(UserError, match=r'needs float32 of shape \(3, 8\)'):
    neuron.step(params, MLFState(jnp.zeros((2, 8))), current((8,)))
  with pytest.raises(
    UserError, match=r'an MLFState, got .* run\(params, x, state\)'
  ):
    neuron.run(params, neuron.init_state(params, (8,)), current((4, 8)))
  with pytest.raises(UserError, match=r'be MLFParams, got .* run\(params, x, '):
    neuron.run(current((4, 8)), params)
  mean = jnp.zeros(8)
  with pytest.raises(UserError, match=r'affine.bias must be .*, got .*\(7,\)'):
    neuron.run(
      params, current((4, 8)), affine=neuron.Affine(mean, mean, mean[1:])
    )


@pytest.mark.parametrize('dtype', ['uint8', 'int32', 'bool'])
def test_current_of_whole_numbers_is_to_be_converted(dtype):
  x = np.ones((3, 2), dtype)
  message = rf"x must be float.*, got {dtype}: .*x\.astype\('float32'\)"
  with pytest.raises(UserError, match=message):
    mlf(x)
  with pytest.raises(UserError, match=f'x_t must be .*, got {dtype}'):
    neuron.step(MLFParams(), neuron.init_state(MLFParams(), (2,)), x[0])


def test_current_needs_a_time_axis():
  with pytest.raises(UserError, match='time axis'):
    mlf(jnp.zeros((0, 8)))


@pytest.mark.parametrize(
  ('time', 'shape', 'dtype'),
  [
    (4, (3, 5, 4), 'float64'),
    (9, (7, 3), 'float64'),
    (9, (2, 3, 64), 'float32'),
  ],
)
def test_affine_inside_equals_affine_before(time, shape, dtype):
  """Spikes exactly, gradients to rounding; rows that fill up or do not."""
  with jax.enable_x64(dtype == 'float64'):
    params = MLFParams()
    x = current((time, *shape), dtype=dtype)
    draw = np.random.default_rng(5).uniform
    affine = neuron.Affine(
      *(draw(0.5, 1.5, shape[-1:]).astype(dtype) for _ in range(3))
    )
    weights = current(x.shape, 3, dtype)

    def inside(x, affine):
      return neuron.run(params, x, None, affine)[1]

    def before(x, affine):
      return neuron.run(params, affine(x))[1]

    results = []
    for f in (inside, before):

      @jax.jit
      def pulled(x, affine, f=f):
        spikes, pull = jax.vjp(f, x, affine)
        return spikes, pull(weights)

      results.append(pulled(x, affine))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert 0 < results[0][0].mean() < 3
    tolerance = 1e-12 if dtype == 'float64' else 1e-4
    chex.assert_trees_all_close(
      results[0][1], results[1][1], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize('neurons', [1, 8192, 20011])
def test_tiles_of_the_backward_pass_leave_no_neuron_out(neurons):
  """Numbers of neurons around the size of a tile, and prime ones."""
  params = MLFParams((0.6, 1.6))
  x = current((7, neurons))

  def loss(f, params, x):
    state, spikes = f(params, x)
    return (jnp.sin(x) * spikes).sum() + state.membrane_potential.sum()

  gradients = [
    jit(jax.grad(functools.partial(loss, f), argnums=(0, 1)))(params, x)
    for f, jit in ((neuron.run, jax.jit), (scanned_from_rest, quick.jit))
  ]
  chex.assert_trees_all_close(
    gradients[0][1], gradients[1][1], rtol=1e-5, atol=1e-5
  )
  chex.assert_trees_all_close(
    gradients[0][0], gradients[1][0], rtol=1e-3, atol=1e-2
  )
