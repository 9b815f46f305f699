"""Spiking units: units of one's own in the networks, and the built-in ones."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlf_jax import UserError, models, neuron, stream
from mlf_jax.fields import fields_of
from mlf_jax.layers import (
  MLF,
  NORMALIZATIONS,
  UNITS,
  ReLU,
  SpikingUnit,
  SpikingUnits,
  TDBatchNorm,
  memory_modes,
)
from tests import quick


@dataclasses.dataclass(frozen=True)
class Clipped(SpikingUnit):
  """A ReLU-like unit without state: the current between 0 and a ceiling."""

  ceiling: float = 2.0

  def init_state(self, parameters, shape, dtype):
    return ()

  def step(self, parameters, state, x_t):
    return state, jnp.clip(x_t, 0, self.ceiling)


@jax.custom_jvp
def ternary(u):
  return (u > 0.5).astype(u.dtype) - (u < -0.5).astype(u.dtype)


ternary.defjvp(lambda u, du: (ternary(*u), du[0] * (jnp.abs(u[0]) < 1)))


@dataclasses.dataclass(frozen=True)
class Ternary(SpikingUnit):
  """Spikes -1, 0 and 1; each channel learns its decay."""

  first_decay: float = 0.5

  def learned(self, shape):
    return {
      'decay': lambda key, dtype: jnp.full(shape[-1:], self.first_decay, dtype),
      'start': lambda key, dtype: jnp.full(shape[-1:], 0.25, dtype),
    }

  def output_range(self, input_range=None):
    return -1, 1

  def init_state(self, parameters, shape, dtype):
    return jnp.broadcast_to(parameters['start'], shape).astype(dtype)

  def step(self, parameters, u, x_t):
    decay = jnp.expand_dims(parameters['decay'], tuple(range(u.ndim - 1)))
    u = decay * (u - ternary(u)) + x_t.astype(u.dtype)
    return u, ternary(u)


RESNET = functools.partial(models.SpikingResNet, (2, 1), (4, 6), 3, 3)
VGG = functools.partial(
  models.SpikingVGG, 3, 3, dropout_rate=0.0, widths=((4, 4), (6,))
)


def variables_of(model, x):
  """Variables of a network; learned parameters of units are 0.5."""
  variables = quick.variables(model, x)
  params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf + 0.5 * ('units' in str(path)),
    variables['params'],
  )
  return {**variables, 'params': params}


def frames():
  return jax.random.normal(jax.random.key(0), (4, 3, 6, 6, 2)) * 3


@pytest.mark.parametrize('network', [RESNET, VGG])
@pytest.mark.parametrize('unit', [Clipped(), Ternary()])
def test_a_step_with_a_unit_of_ones_own(flax_pools, network, unit):
  x, labels = frames(), jnp.arange(4) % 3
  results = {}
  for mode in ('fastest', 'smallest'):
    model = network(unit=unit, memory=mode)
    variables = variables_of(model, x)

    def loss(params, model=model, variables=variables):
      logits, _ = model.apply(
        {**variables, 'params': params}, x, True, mutable=['batch_stats']
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean()

    results[mode] = quick.jit(jax.grad(loss))(variables['params'])
  chex.assert_trees_all_close(*results.values(), rtol=1e-4, atol=1e-5)
  gradient = results['smallest']
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf))
  flat = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
  }
  learned = [leaf for path, leaf in flat.items() if 'decay' in path]
  assert bool(learned) == (unit == Ternary())
  assert all(np.any(leaf != 0) for leaf in learned)


def test_a_ternary_unit_in_a_loop_over_blocks_and_in_pieces():
  """Learned parameters are stacked; its start is not 0; ranges are signed."""
  model = RESNET(unit=Ternary(), memory='smallest')
  x = frames()
  variables = variables_of(model, x)
  whole = jax.jit(model.apply)(variables, x)
  looped = model.clone(scan_blocks=True, stage_sizes=(2, 1))
  np.testing.assert_allclose(
    jax.jit(looped.apply)(variables, x), whole, rtol=1e-5, atol=1e-6
  )
  state = stream.init(model, variables, x.shape[2:], len(x))
  for t in range(3):
    state, logits = stream.feed(model, variables, state, x[:, t : t + 1])
  np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('unit', [MLF((0.6, 1.6)), ReLU(), Ternary()])
def test_run_equals_step_over_time(unit):
  x = jax.random.normal(jax.random.key(0), (5, 2, 3)) * 2
  parameters = {
    name: initialiser(jax.random.key(0), x.dtype)
    for name, initialiser in unit.learned(x.shape[2:]).items()
  }
  affine = neuron.Affine(*(jnp.full(3, value) for value in (0.5, 1.5, 0.1)))
  state = unit.init_state(parameters, x.shape[1:], x.dtype)

  @quick.jit
  def folded(state):
    outputs = []
    for x_t in affine(x):
      state, output = unit.step(parameters, state, x_t)
      outputs.append(output)
    return state, jnp.stack(outputs)

  final, spikes = quick.jit(unit.run)(parameters, x, state, affine)
  chex.assert_trees_all_close((final, spikes), folded(state), rtol=1e-6)
  if unit.output_range() is not None:
    low, high = unit.output_range()
    assert low == spikes.min() and spikes.max() == high


def test_mlf_can_be_observed():
  unit = MLF((0.5, 1.5), decay=0.5)
  x = jnp.array([[0.4], [0.9], [2.0]])
  state = unit.init_state({}, (1,), x.dtype)
  potential, fired, in_window = unit.observe({}, x, state)
  # Level 1 fires at 1.1 and starts again; level 2 does not.
  np.testing.assert_allclose(
    potential[..., 0], [[0.4, 0.4], [1.1, 1.1], [2.0, 2.55]]
  )
  np.testing.assert_array_equal(fired[..., 0], [[0, 0], [1, 0], [1, 1]])
  np.testing.assert_array_equal(in_window[..., 0], [[1, 0], [0, 1], [0, 0]])


def test_units_are_plain_numbers_with_explanations():
  unit = MLF(thresholds=np.array([0.5, 1.5]))
  assert unit == MLF((0.5, 1.5)) and hash(unit) == hash(MLF((0.5, 1.5)))
  for cls in UNITS.values():
    for field in fields_of(cls):
      assert field.help
  with pytest.raises(UserError, match='decay must lie in'):
    MLF(decay=2.0)
  with pytest.raises(UserError, match='must be strictly increasing'):
    MLF((2.0, 1.0))
  with pytest.raises(UserError, match="unit 'lix' is unknown"):
    UNITS['lix']


def test_first_threshold_scales_the_normalisation():
  model = models.SpikingResNet((1,), (4,), 3, 1, unit=MLF((0.3, 1.3)))
  x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

  def normalised(variables):
    seen = {}

    def record(call, args, kwargs, context):
      result = call(*args, **kwargs)
      if context.method_name == 'coefficients':
        seen[context.module.name] = result(args[0])
      return result

    with nn.intercept_methods(record):
      model.apply(variables, x, train=True, mutable=['batch_stats'])
    return seen['bn1']

  y = quick.jit(normalised)(quick.variables(model, x))
  np.testing.assert_allclose(y.std((0, 1, 2)), 0.3, rtol=1e-3)


@pytest.mark.parametrize('unit', ['mlf', MLF])
def test_units_need_an_instance(unit):
  with pytest.raises(UserError, match=r'an instance, such as layers\.LIF\(\)'):
    SpikingUnits(unit, 2)


def test_units_carry_state_where_it_is_mutable():
  units = SpikingUnits(MLF(), 2)
  x = jnp.full((4, 3), 0.4)
  y, carried = units.apply({}, x, mutable=['membrane_potential'])
  assert set(carried) == {'membrane_potential'} and y.sum() == 0
  # 0.5 is carried, and 0.25 * 0.5 + 0.4 still does not exceed 0.6.
  _, again = units.apply(carried, x, mutable=['membrane_potential'])
  (u,) = jax.tree.leaves(again)
  np.testing.assert_allclose(u, 0.4 * (1 - 0.25**4) / 0.75, rtol=1e-6)
  assert units.init(jax.random.key(0), x) == {}


def test_a_normalisation_of_ones_own(monkeypatch):
  class Doubled(TDBatchNorm):
    def coefficients(self, *args, **kwargs):
      affine = super().coefficients(*args, **kwargs)
      return affine._replace(scale=2 * affine.scale)

  monkeypatch.setitem(NORMALIZATIONS, 'doubled', Doubled)
  x = frames()
  model = models.SpikingResNet((1,), (4,), 3, 3)
  doubled = model.clone(normalization='doubled')
  variables = quick.variables(model, x)
  one, other = (
    quick.jit(functools.partial(m.apply, mutable=['batch_stats'], train=True))(
      variables, x
    )[0]
    for m in (model, doubled)
  )
  assert np.any(one != other)


def test_a_residual_block_of_ones_own(monkeypatch):
  class Shortcut(models.ResidualBlock):
    @nn.compact
    def __call__(self, x, train):
      x = self.make.mode.block_input(x, self.input_range)
      return self.shortcut_of(x, train) + self.convolved_twice(x, train)

  monkeypatch.setitem(models.BLOCKS, 'own', Shortcut)
  x = frames()
  for mode in memory_modes.MODES:
    model = RESNET(residual='own', memory=mode)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert 'bn2' not in variables['params']['layer1_0']
  logits = quick.jit(model.apply)(quick.variables(model, x), x)
  assert logits.shape == (4, 3) and np.all(np.isfinite(logits))
