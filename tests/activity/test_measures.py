"""Counts of activity: single units one by one, closed forms, sums."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, activity, stream
from mlf_jax.layers import MEMBRANE_POTENTIAL, MLF, Observation, SpikingUnits
from tests import quick, test_stream
from tests.activity import network


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


of = quick.jit(activity.LayerActivity.of)


def test_every_layer_equals_a_count_over_single_units():
  model, variables, x = network.tiny()
  currents = network.currents(model, variables, x)
  edges = activity.membrane_edges(model.unit)
  layers = activity.measure(model, variables, x, edges=edges)
  assert [*layers] == [*currents] == network.UNITS
  for path, layer in layers.items():
    counted = network.count_one_by_one(model.unit, currents[path], edges)
    for name, expected in counted.items():
      np.testing.assert_array_equal(getattr(layer, name), expected, name)
    assert layer.samples == len(x) and layer.spikes.min() >= 0
  assert sum(layer.spikes.sum() for layer in layers.values()) > 0


@pytest.mark.parametrize('num_levels', [1, 2, 3])
def test_dormant_share_of_gaussian_currents_is_the_closed_form(num_levels):
  """At t = 1 the windows of K levels one apart cover (0.1, K + 0.1)."""
  unit = MLF((0.6, 1.6, 2.6)[:num_levels])
  n, deviation = 400_000, 0.6
  u = np.random.default_rng(0).normal(0, deviation, (1, 1, n))
  u = jnp.asarray(u, jnp.float32)
  state = unit.init_state({}, u.shape[1:], u.dtype)
  measure = lambda u: activity.LayerActivity.of(unit.observe({}, u, state))
  layer = quick.jit(measure)(u)
  cdf = lambda v: 0.5 * (1 + math.erf(v / deviation / math.sqrt(2)))
  expected = 1 - (cdf(num_levels + 0.1) - cdf(0.1))
  error = math.sqrt(expected * (1 - expected) / n)
  assert layer.dormant_share == pytest.approx(expected, abs=4 * error)
  assert round(expected, 3) == (0.600 if num_levels == 1 else 0.566)
  # With one timestep the two kinds of dormancy are one.
  assert layer.dormant_throughout_share == layer.dormant_share


def observation(number, in_window=False):
  """Observation of two levels in units of which so many levels fire."""
  number = np.asarray(number)[:, None]
  fired = np.concatenate([number >= 1, number >= 2], 1)
  return Observation(
    fired.astype(np.float32), jnp.asarray(fired), fired & in_window
  )


def test_shares_of_units_by_hand():
  # Two timesteps of one sample with four units.
  layer = of(observation([[[0, 2, 1, 0]], [[0, 1, 1, 2]]], in_window=True))
  assert (layer.never_fires_share, layer.always_fires_share) == (0.25, 0.5)
  assert layer.firing_rate == 7 / 8
  np.testing.assert_allclose(layer.firing_rate_by_level, [5 / 8, 2 / 8])
  np.testing.assert_allclose(layer.output_distribution, [3 / 8, 3 / 8, 2 / 8])
  assert (layer.dormant_share, layer.dormant_throughout_share) == (3 / 8, 0.25)


def test_effective_levels_run_from_one_to_k():
  effective = lambda number: of(observation([[number]])).effective_levels
  assert effective([0, 0]) == 0
  assert effective([0, 2, 2]) == 1
  assert effective([1, 2, 0]) == pytest.approx(2)
  assert 1 < effective([1, 1, 2]) < 2


def assert_same(one, other):
  assert [*one] == [*other]
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_batches_add_up_to_the_whole_without_what_fills_the_last():
  model, variables, x = network.tiny()
  edges = activity.membrane_edges(model.unit)
  filled = np.concatenate([x[2:], np.ones_like(x)[:1]])
  parts = [
    activity.measure(model, variables, part, edges=edges, mask=mask)
    for part, mask in ((x[:2], np.ones(2)), (filled, np.array([1.0, 0])))
  ]
  whole = activity.measure(model, variables, x, edges=edges)
  assert_same(activity.merge(*parts), activity.merge(whole))


def test_pieces_of_recordings_join_to_the_whole():
  """With the membranes carried, in a network whose convolutions are exact."""
  model = test_stream.RESNET().clone(stage_sizes=(1,), widths=(4,))
  variables, frames = test_stream.trained(model), test_stream.recordings()
  state = stream.init(model, variables, frames.shape[2:], len(frames))
  pieces = []
  for piece in (frames[:, :1], frames[:, 1:]):
    carried = {**variables, MEMBRANE_POTENTIAL: state.collection}
    fed = model.clone(time_steps=piece.shape[1])
    pieces.append(activity.measure(fed, carried, piece, per_sample=True))
    state, _ = stream.feed(model, variables, state, piece)
  model = model.clone(time_steps=4)
  whole = activity.measure(model, variables, frames)
  joined = activity.join(*pieces)
  assert_same(activity.merge(joined), activity.merge(whole))
  for layer in whole.values():
    assert layer.dormant_throughout.sum() > 0
  message = 'each of measure.*per_sample=True'
  with pytest.raises(UserError, match=message):
    activity.join(whole, whole)


def test_learned_parameters_and_state_are_those_of_the_layer():
  """`observe` and the output are two views of the same units."""
  units = SpikingUnits(MLF((0.5, 1.5)), 2, jnp.float32)
  x = jax.random.normal(jax.random.key(0), (6, 5))
  carried = {'state': MLF((0.5, 1.5)).init_state({}, (3, 5), x.dtype)}
  carried = jax.tree.map(lambda u: u + 0.4, carried)
  variables = {MEMBRANE_POTENTIAL: carried}
  seen = units.apply(variables, x, method='observe')
  np.testing.assert_array_equal(
    seen.fired.sum(1).reshape(x.shape), units.apply(variables, x)
  )
  at_rest = units.apply({}, x, method='observe')
  assert np.any(at_rest.membrane_potential != seen.membrane_potential)


def test_edges_hold_thresholds_and_windows():
  unit = MLF((0.5, 2.5), width=2.0)
  edges = activity.membrane_edges(unit)
  for value in (-0.5, 0.5, 1.5, 2.5, 3.5):
    assert np.isclose(edges, value).sum() == 1
  assert np.all(np.diff(edges) > 0)
