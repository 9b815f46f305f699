"""Captures hold every layer in order, in loops over blocks too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, activity
from mlf_jax.layers import MLF, ReLU, SpikingUnits
from mlf_jax.models import SpikingResNet
from tests import quick
from tests.activity import network


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


def test_blocks_in_a_loop_show_what_single_blocks_show():
  model = SpikingResNet((3,), (2,), 3, 2)
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  variables = quick.variables(model, x)
  looped = model.clone(scan_blocks=True, memory='smallest')
  one, other = (activity.measure(m, variables, x) for m in (model, looped))
  assert [*one] == [*other] and 'layer1_2/units2' in one
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_observations_are_whole_and_in_the_order_of_computation():
  model, variables, x = network.tiny()
  seen = activity.observe(model, variables, jnp.asarray(x))
  assert [*seen] == network.UNITS
  edges = activity.membrane_edges(model.unit)
  layers = activity.measure(model, variables, x, edges=edges)
  for path, layer in layers.items():
    assert seen[path].fired.shape[:3] == (2, 2, 3)
    assert seen[path].fired.sum() == layer.spikes.sum()


def test_a_hook_may_apply_modules_and_changes_nothing():
  model, variables, x = network.tiny()

  def hook(module, *args, **kwargs):
    if isinstance(module, nn.Dense):
      return nn.Dense(2).apply(
        {'params': {'kernel': jnp.ones((3, 2)), 'bias': jnp.zeros(2)}}, args[0]
      )

  @jax.jit
  def both(variables, x):
    return activity.capture(model, variables, x, hook), model.apply(
      variables, x
    )

  (logits, captured), expected = both(variables, x)
  np.testing.assert_array_equal(logits, expected)
  assert {k: v.shape for k, v in captured.items()} == {'voting': (3, 2)}


def test_networks_need_not_take_train():
  class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
      return SpikingUnits(MLF(), 2, jnp.float32)(x)

  class Forwarding(Own):
    def __call__(self, x, **options):
      assert options == {'train': True} or self.is_initializing()
      return super().__call__(x)

  x = jnp.ones((4, 3))
  (layer,) = activity.measure(Own(), {}, x).values()
  assert layer.pairs == 12 and layer.spikes.sum() > 0
  assert [*activity.observe(Own(), {}, x)] == ['SpikingUnits_0']
  assert activity.measure(Forwarding(), {}, x, train=True)
  with pytest.raises(UserError, match=r'Own\.__call__ takes no argument train'):
    activity.measure(Own(), {}, x, train=True)


def test_what_cannot_be_observed_is_said_in_one_line():
  model, variables, x = network.tiny()
  with pytest.raises(UserError, match='ReLU has no method observe'):
    activity.measure(model.clone(unit=ReLU()), variables, x)

  class Dense(nn.Dense):
    def __call__(self, x, train):
      return super().__call__(x)

  dense = Dense(2)
  with pytest.raises(UserError, match=r'Dense has no .* write layers\.Spik'):
    activity.observe(dense, dense.init(jax.random.key(0), x, False), x)
