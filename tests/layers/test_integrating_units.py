"""Units related to MLF, beside NumPy computations of their equations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, models, neuron
from mlf_jax.layers import (
  LIF,
  MLF,
  UNITS,
  IntegerLIF,
  LearnedMLF,
  MultiHierarchical,
  ParametricLIF,
  Ternary,
)
from tests import quick


def window(z):
  return (np.abs(z) < 0.5).astype(float)


# One timestep of each unit in NumPy. Arguments: the learned values by name, and
# the membrane potential u [level, ...] before the reset. Results: spikes o and
# their derivatives; what is left of u and its derivatives. The derivatives are
# with respect to 'u' and to the learned values.


def lif_soft(values, u, threshold=0.6, decay=0.25):
  o, h = (u > threshold) * 1.0, window(u - threshold)
  left = decay * (u - threshold * o)
  return o, {'u': h}, left, {'u': decay * (1 - threshold * h)}


def lif_hard(values, u, threshold=0.6, decay=1.0):
  o, h = (u > threshold) * 1.0, window(u - threshold)
  return o, {'u': h}, decay * u * (1 - o), {'u': decay * (1 - o - u * h)}


def plif(values, u):
  k = values['k']
  o, h = (u > 1) * 1.0, 1 / (1 + np.square(np.pi * (u - 1)))
  left = (1 - k) * u * (1 - o)
  d_left = {'u': (1 - k) * (1 - o - u * h), 'k': -u * (1 - o)}
  return o, {'u': h}, left, d_left


def learned_mlf(values, u):
  levels = (-1,) + (1,) * (u.ndim - 1)
  v, decay = (values[name].reshape(levels) for name in ('v', 'decay'))
  o, h = (u > v) * 1.0, window(u - v)
  d_left = {'u': decay * (1 - o - u * h), 'v': decay * u * h}
  d_left['decay'] = u * (1 - o)
  return o, {'u': h, 'v': -h}, decay * u * (1 - o), d_left


def integer_lif(values, u, decay=0.25, most=4):
  o = np.clip(np.round(u), 0, most)
  inside = ((u >= 0) & (u <= most)) * 1.0
  return o, {'u': inside}, decay * (u - o), {'u': decay * (1 - inside)}


def lm_ht(values, u, most=4):
  v, decay = values['v'], values['decay']
  o = sum((u > level * v) * 1.0 for level in range(1, most + 1))
  inside = ((u >= 0.5 * v) & (u <= (most + 0.5) * v)) * 1.0
  d_o = {'u': inside / v, 'v': -inside * u / v**2}
  d_left = {
    'u': decay * (1 - inside),
    'v': -decay * (o + v * d_o['v']),
    'decay': u - v * o,
  }
  return o, d_o, decay * (u - v * o), d_left


def ternary(values, u, threshold=0.6, decay=0.25):
  o = np.sign(u) * (np.abs(u) > threshold)
  h = window(np.abs(u) - threshold)
  left = decay * u * (1 - np.abs(o))
  return o, {'u': h}, left, {'u': decay * (1 - np.abs(o) - u * np.sign(u) * h)}


def forward_and_backward(timestep, values, x, u, g):
  """Runs a unit and goes back through it, written out over time."""
  gain = values.get('k', 1.0)
  start, trace = u, []
  for x_t in x:
    left = timestep(values, u)[2]
    u = left + gain * x_t
    trace.append(u)
  spikes = np.stack([timestep(values, u)[0].sum(0) for u in trace])
  d_x, d, d_values = [], np.zeros_like(u), dict.fromkeys(values, 0.0)
  for t in reversed(range(-1, len(x))):
    u_t = trace[t] if t >= 0 else start
    g_t = g[t] if t >= 0 else 0.0
    _, d_o, _, d_left = timestep(values, u_t)
    for name in values:
      change = d * d_left.get(name, 0) + g_t * d_o.get(name, 0)
      axes = tuple(range(np.ndim(values[name]), u.ndim))
      d_values[name] = d_values[name] + change.sum(axes)
    d = g_t * d_o['u'] + d * d_left['u']
    if t >= 0:
      d_x.append(gain * d.sum(0))
      if 'k' in values:
        d_values['k'] += (d * x[t]).sum()
  return spikes, np.stack(d_x[::-1]), d, d_values


def logistic(a):
  return 1 / (1 + np.exp(-a))


def plif_values(parameters):
  return {'k': logistic(parameters['inverse_tau'])}


def plif_gradient(parameters, d):
  k = logistic(parameters['inverse_tau'])
  return {'inverse_tau': d['k'] * k * (1 - k)}


def learned_mlf_values(parameters):
  gaps = np.exp(parameters['log_gaps'])
  decay = logistic(parameters['decay_logit'])
  return {'v': np.cumsum(gaps), 'decay': decay}


def learned_mlf_gradient(parameters, d):
  gaps = np.exp(parameters['log_gaps'])
  decay = logistic(parameters['decay_logit'])
  # A gap moves its own threshold and all above.
  return {
    'log_gaps': gaps * np.cumsum(d['v'][::-1])[::-1],
    'decay_logit': d['decay'] * decay * (1 - decay),
  }


def lm_ht_values(parameters):
  return {
    'v': np.exp(parameters['log_threshold']),
    'decay': logistic(parameters['decay_logit']),
  }


def lm_ht_gradient(parameters, d):
  decay = logistic(parameters['decay_logit'])
  return {
    'log_threshold': d['v'] * np.exp(parameters['log_threshold']),
    'decay_logit': d['decay'] * decay * (1 - decay),
  }


NOTHING = (lambda parameters: {}, lambda parameters, d: {})
CASES = {
  'lif': (LIF(), lif_soft, *NOTHING),
  'if': (LIF(decay=1.0, reset='hard'), lif_hard, *NOTHING),
  'plif': (ParametricLIF(), plif, plif_values, plif_gradient),
  'learned_mlf': (
    LearnedMLF(learn_start=True),
    learned_mlf,
    learned_mlf_values,
    learned_mlf_gradient,
  ),
  'integer_lif': (IntegerLIF(), integer_lif, *NOTHING),
  'lm_ht': (MultiHierarchical(), lm_ht, lm_ht_values, lm_ht_gradient),
  'ternary': (Ternary(), ternary, *NOTHING),
}


def parameters_of(unit, dtype):
  """Learned parameters, away from where they start."""
  rng = np.random.default_rng(1)
  return {
    name: initialiser(jax.random.key(0), dtype) + rng.uniform(-0.2, 0.2)
    for name, initialiser in unit.learned((2, 3)).items()
  }


# Written out; packed and looped backward; in a loop both ways.
@pytest.mark.parametrize('time', [3, 8, 17])
@pytest.mark.parametrize('name', CASES)
def test_spikes_and_gradients_are_those_of_the_paper(x64, name, time):
  unit, timestep, values_of, gradient_of = CASES[name]
  rng = np.random.default_rng(0)
  x, g = rng.normal(size=(2, time, 4, 30)) * 2
  parameters = parameters_of(unit, jnp.float64)

  @quick.jit
  def run(parameters, x, g):
    def spikes(parameters, x):
      state = unit.init_state(parameters, x.shape[1:], x.dtype)
      return unit.run(parameters, x, state)[1]

    spikes, pull = jax.vjp(spikes, parameters, x)
    return spikes, *pull(g)

  spikes, d_parameters, d_x = run(parameters, x, g)
  plain = {k: np.asarray(v) for k, v in parameters.items()}
  u = np.zeros((unit.num_levels, 4, 30))
  if 'start' in plain:
    u += plain['start'][:, None, None]
  expected, d_expected, d_u, d_values = forward_and_backward(
    timestep, values_of(plain), x, u, g
  )
  wanted = gradient_of(plain, d_values)
  if 'start' in plain:
    wanted['start'] = d_u.sum((1, 2))
  np.testing.assert_array_equal(spikes, expected)
  low, high = unit.output_range()
  assert (spikes.min(), spikes.max()) == (low, high)
  np.testing.assert_allclose(d_x, d_expected, atol=1e-12)
  chex.assert_trees_all_close(d_parameters, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
  ('dtype', 'affine'),
  [('float32', False), ('float32', True), ('bfloat16', False)],
)
@pytest.mark.parametrize('time', [5, 8, 17])
@pytest.mark.parametrize('name', CASES)
def test_run_equals_step_over_time(name, time, dtype, affine):
  """Spikes exactly, the rest to rounding."""
  unit = CASES[name][0]
  if name == 'plif' and affine:
    pytest.skip('1 / tau scales the coefficients, which rounds differently')
  x = (2 * jax.random.normal(jax.random.key(0), (time, 4, 30))).astype(dtype)
  parameters = parameters_of(unit, jnp.float32)
  coefficients = (jnp.full(30, v) for v in (0.5, 1.25, 0.125))
  affine = neuron.Affine(*coefficients) if affine else None

  def folded(parameters, x):
    state = unit.init_state(parameters, x.shape[1:], jnp.float32)
    current = x if affine is None else affine(x)
    step = functools.partial(unit.step, parameters)
    return jax.lax.scan(step, state, current)

  def run(parameters, x):
    state = unit.init_state(parameters, x.shape[1:], jnp.float32)
    return unit.run(parameters, x, state, affine)

  results = []
  for function in (folded, run):

    def both(parameters, x, function=function):
      (state, spikes), pull = jax.vjp(function, parameters, x)
      return state, spikes, pull((jnp.ones_like(state), jnp.cos(spikes)))

    results.append(quick.jit(both)(parameters, x))
  (state, spikes, d), (run_state, run_spikes, run_d) = results
  assert run_spikes.dtype == dtype
  np.testing.assert_array_equal(run_spikes, spikes)
  np.testing.assert_allclose(run_state, state, rtol=1e-5, atol=1e-6)
  tolerance = 1e-4 if dtype == 'float32' else 2e-2
  chex.assert_trees_all_close(run_d, d, rtol=tolerance, atol=10 * tolerance)


def test_hard_reset_of_one_level_is_mlf(x64):
  x = np.random.default_rng(0).normal(size=(9, 50)) * 2
  state = jnp.zeros((1, 50))
  (_, spikes), (_, expected) = (
    LIF(reset='hard').run({}, x, state),
    MLF((0.6,)).run({}, x, neuron.MLFState(state)),
  )
  np.testing.assert_array_equal(spikes, expected)


def test_learned_mlf_starts_as_mlf(x64):
  unit = LearnedMLF((0.5, 1.5), 0.5, learn_start=True)
  parameters = {
    name: initialiser(jax.random.key(0), jnp.float64)
    for name, initialiser in unit.learned(()).items()
  }
  x = np.random.default_rng(0).normal(size=(9, 50)) * 2
  start = unit.init_state(parameters, (50,), x.dtype)
  _, spikes = unit.run(parameters, x, start)
  expected = neuron.run(neuron.MLFParams((0.5, 1.5), 0.5), x)[1]
  np.testing.assert_array_equal(spikes, expected)
  # However far they move, thresholds stay positive and in order.
  parameters['log_gaps'] -= 9.0
  thresholds, _ = unit.values(parameters)
  assert 0 < thresholds[0] < thresholds[1]


def test_integer_spikes_equal_their_expansion():
  """Timesteps of 0 and 1: from a unit that subtracts 1, through a synapse."""
  unit = IntegerLIF(levels=3)
  x = 2 * jax.random.normal(jax.random.key(0), (6, 5, 8))
  state = unit.init_state({}, x.shape[1:], x.dtype)
  potential, _, _ = unit.observe({}, x, state)
  _, spikes = unit.run({}, x, state)
  expanded = unit.unit_spikes(spikes)
  emitted = []
  for u in np.asarray(potential[:, 0]):
    for _ in range(unit.levels):
      emitted.append(u > 0.5)
      u = u - emitted[-1]
  np.testing.assert_array_equal(expanded, np.stack(emitted))
  weights = jnp.round(8 * jax.random.normal(jax.random.key(1), (8, 4)))
  through = (expanded @ weights).reshape(6, 3, 5, 4).sum(1)
  np.testing.assert_array_equal(through, spikes @ weights)


@pytest.mark.parametrize('name', CASES)
def test_in_a_network(name):
  """Every learned parameter gets a gradient; the inside can be observed."""
  unit = CASES[name][0]
  model = models.SpikingResNet((1, 1), (4, 6), 3, 4, unit=unit)
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
  variables = quick.variables(model, x)

  def loss(params):
    logits, _ = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    return jnp.square(logits - 1).sum()

  gradient = quick.jit(jax.grad(loss))(variables['params'])
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.all(np.isfinite(leaf))
    assert np.any(leaf != 0), path
  current = jnp.linspace(-9, 9, 4 * 50).reshape(4, 50)
  parameters = parameters_of(unit, jnp.float32)
  state = unit.init_state(parameters, (50,), current.dtype)
  seen = unit.observe(parameters, current, state)
  _, spikes = unit.run(parameters, current, state)
  assert seen.fired.shape == (4, unit.num_levels, 50)
  np.testing.assert_array_equal(seen.fired.any(1), spikes != 0)
  assert seen.in_window.any() and not seen.in_window.all()


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: LIF(threshold=-1.0), 'LIF.threshold must be above 0, got -1'),
    (lambda: LIF(reset='none'), 'LIF.reset'),
    (lambda: LIF(surrogate=jnp.tanh), 'goes into a unit of your own'),
    (lambda: LearnedMLF((2.0, 1.0)), 'must be strictly increasing'),
    (lambda: LearnedMLF(decay=1.0), 'decay must be above 0 and below 1'),
    (lambda: IntegerLIF(levels=0), 'IntegerLIF.levels must be at least 1'),
  ],
)
def test_a_mistake_is_one_line(make, message):
  with pytest.raises(UserError, match=message):
    make()


def test_all_are_named():
  named = {type(unit) for unit, *_ in CASES.values()}
  assert named <= set(UNITS.values())
