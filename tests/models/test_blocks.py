"""Residual blocks beside NumPy computations of their equations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import models
from mlf_jax.layers import LIF, memory_modes
from tests import quick

UNIT = LIF(decay=0.5, reset='hard')
NETWORK = functools.partial(
  models.SpikingResNet, (1, 2), (4, 6), 3, 2, unit=UNIT
)


def frames(dtype=jnp.float32):
  return jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 2), dtype)


def convolved(x, kernel, stride=1):
  """A convolution that pads by half of the kernel, tap by tap."""
  size = kernel.shape[0]
  height, width = (-(-side // stride) for side in x.shape[1:3])
  x = np.pad(x, ((0, 0), *[(size // 2, size // 2)] * 2, (0, 0)))
  return sum(
    x[:, i:, j:][:, ::stride, ::stride][:, :height, :width] @ kernel[i, j]
    for i in range(size)
    for j in range(size)
  )


def normalised(x, params):
  """tdBN with the running statistics 0 and 1."""
  return x * 0.6 / (1 + 1e-5) * params['scale'] + params['bias']


def fired(x):
  """Units with a hard reset over two timesteps, which are folded into batch."""
  first, second = x.reshape(2, -1, *x.shape[1:])
  spikes = first > 0.6
  second = 0.5 * first * (1 - spikes) + second
  return np.concatenate([spikes, second > 0.6]).astype(float)


def membrane_shortcut_network(params, x):
  """The whole network with 'ms' blocks."""
  x = x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
  norm = lambda x, p, name: normalised(x, p[name])
  x = norm(convolved(x, params['conv1']['kernel']), params, 'bn1')
  for name, stride in (('layer1_0', 1), ('layer2_0', 2), ('layer2_1', 1)):
    p, shortcut = params[name], x
    if 'shortcut_conv' in p:
      kernel = p['shortcut_conv']['kernel']
      shortcut = norm(convolved(x, kernel, stride), p, 'shortcut_bn')
    y = convolved(fired(x), p['conv1']['kernel'], stride)
    y = convolved(fired(norm(y, p, 'bn1')), p['conv2']['kernel'])
    x = norm(y, p, 'bn2') + shortcut
  x = fired(x).mean((1, 2)).reshape(2, -1, 6).mean(0)
  return x @ params['voting']['kernel'] + params['voting']['bias']


def drawn(model, x):
  """Variables whose every parameter differs from its neighbours."""
  variables = quick.variables(model, x)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: leaf + rng.uniform(-0.3, 0.3, leaf.shape), variables['params']
  )
  return {**variables, 'params': params}


def test_membrane_shortcut_network(x64):
  model, x = NETWORK(residual='ms', dtype=jnp.float64), frames(float)
  variables = drawn(model, x)
  logits = quick.jit(model.apply)(variables, x)
  expected = membrane_shortcut_network(
    jax.tree.map(np.asarray, variables['params']), np.asarray(x)
  )
  np.testing.assert_allclose(logits, expected, atol=1e-12)


@pytest.mark.parametrize('scan_blocks', [False, True])
def test_membrane_shortcuts_in_every_mode(scan_blocks):
  """The gradient is the same, whatever a mode keeps for the backward pass."""
  x = frames()
  gradients = []
  for mode in memory_modes.MODES:
    model = NETWORK(residual='ms', memory=mode, scan_blocks=scan_blocks)
    model = model.clone(stage_sizes=(3, 1))
    variables = drawn(model, x)
    variables = jax.tree.map(lambda v: v.astype(jnp.float32), variables)

    def loss(params, model=model, variables=variables):
      logits, _ = model.apply(
        {**variables, 'params': params}, x, True, mutable=['batch_stats']
      )
      return jnp.square(logits - 1).sum()

    gradients.append(quick.jit(jax.grad(loss))(variables['params']))
  for other in gradients[1:]:
    chex.assert_trees_all_close(other, gradients[0], rtol=1e-3, atol=1e-4)


def test_sew_adds_as_ds_does():
  x = frames()
  ds, sew = NETWORK(residual='ds'), NETWORK(residual='sew')
  variables = quick.variables(ds, x)
  np.testing.assert_array_equal(
    quick.jit(sew.apply)(variables, x), quick.jit(ds.apply)(variables, x)
  )
