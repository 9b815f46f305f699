"""Outputs and gradients beside SpikingJelly and snnTorch, as documented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import layers, mlf

X = np.random.default_rng(0).normal(0.4, 0.8, (6, 5, 7)).astype(np.float32)
G = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)


def of_unit(unit, x):
  """Output of a unit of one level for all timesteps."""
  state = unit.init_state({}, x.shape[1:], x.dtype)
  return unit.run({}, x, state)[1]


RECT = {'tau': 4 / 3, 'decay_input': False, 'v_threshold': 0.6}
# Class and arguments there, its surrogate, and the same here.
SPIKINGJELLY = {
  'mlf': (
    ('LIFNode', RECT, ('Rect', 1.0)),
    lambda x: mlf(x, thresholds=(0.6,), decay=0.25),
  ),
  'hard': (
    ('LIFNode', RECT, ('Rect', 1.0)),
    lambda x: of_unit(layers.LIF(threshold=0.6, decay=0.25, reset='hard'), x),
  ),
  'soft': (
    ('LIFNode', RECT | {'v_reset': None}, ('Rect', 1.0)),
    lambda x: of_unit(layers.LIF(threshold=0.6, decay=0.25, reset='soft'), x),
  ),
  'defaults': (
    ('LIFNode', {}, ('Sigmoid', 4.0)),
    lambda x: mlf(0.5 * x, (1.0,), decay=0.5, surrogate='sigmoid'),
  ),
  'integrating': (
    ('IFNode', {}, ('ATan', 2.0)),
    lambda x: of_unit(
      layers.LIF(1.0, decay=1.0, reset='hard', surrogate='arctan'), x
    ),
  ),
}


@pytest.mark.parametrize('name', SPIKINGJELLY)
def test_spikingjelly(name):
  torch = pytest.importorskip('torch')
  pytest.importorskip('spikingjelly')
  from spikingjelly.activation_based import neuron, surrogate

  (kind, options, (shape, alpha)), ours = SPIKINGJELLY[name]
  unit = getattr(neuron, kind)(
    surrogate_function=getattr(surrogate, shape)(alpha=alpha),
    step_mode='m',
    **options,
  )
  x = torch.tensor(X, requires_grad=True)
  theirs = unit(x)
  theirs.backward(torch.tensor(G))
  output, pull = jax.vjp(ours, jnp.asarray(X))
  np.testing.assert_array_equal(output, theirs.detach().numpy())
  assert 0 < output.mean() < 1
  np.testing.assert_allclose(pull(jnp.asarray(G))[0], x.grad, atol=1e-5)


def test_snntorch():
  torch = pytest.importorskip('torch')
  snntorch = pytest.importorskip('snntorch')
  unit = snntorch.Leaky(beta=0.25, threshold=0.6, reset_mechanism='zero')
  potential, spikes = unit.reset_mem(), []
  for x_t in torch.tensor(X):
    spikes_t, potential = unit(x_t, potential)
    spikes.append(spikes_t.detach().numpy())
  np.testing.assert_array_equal(
    mlf(jnp.asarray(X), thresholds=(0.6,), decay=0.25), np.stack(spikes)
  )
