"""Blocks and the whole network against the float64 reference data."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from mlf_jax import models
from mlf_jax.interop.torch import from_reference, to_reference
from mlf_jax.layers import MLF, LayerFactory
from tests import golden_data

CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)


@pytest.mark.parametrize('place', ['same', 'down'])
@pytest.mark.parametrize('residual', ['ds', 'plain'])
def test_block(x64, residual, place):
  data = golden_data.load(f'block_{residual}_{place}')
  make = LayerFactory(MLF(), 4, 'tdbn', 'fastest', 'float64', None)
  block = models.BLOCKS[residual](
    features=data['y'].shape[1],
    stride={'same': 1, 'down': 2}[place],
    make=make,
    shortcut={'ds': 'mlf', 'plain': 'norm'}[residual],
  )
  variables = from_reference(golden_data.section(data, 'param'))

  def apply(params, x):
    return block.apply(
      {**variables, 'params': params}, x, True, mutable=['batch_stats']
    )

  y, pull, new = jax.vjp(
    apply, variables['params'], golden_data.nhwc(data['x']), has_aux=True
  )
  CLOSE(y, golden_data.nhwc(data['y']))
  dparams, dx = pull(golden_data.nhwc(data['g']))
  CLOSE(dx, golden_data.nhwc(data['dx']))
  expected = from_reference(golden_data.section(data, 'grad'))['params']
  jax.tree.map(CLOSE, dparams, expected)
  after = from_reference(golden_data.section(data, 'after'))
  jax.tree.map(CLOSE, new['batch_stats'], after['batch_stats'])
  chex.assert_trees_all_equal_structs(new['batch_stats'], after['batch_stats'])
  y = block.apply(after, golden_data.nhwc(data['x']), False)
  CLOSE(y, golden_data.nhwc(data['y_eval']))


def test_network_over_three_sgd_steps(x64):
  """Logits, losses, gradients and evaluation of the DVS-Gesture network."""
  data = golden_data.load('gesture_ds_resnet20_T6')
  model = models.ds_resnet20_dvs_gesture(time_steps=6, dtype='float64')
  variables = jax.tree.map(
    lambda v: v.astype(np.float64),
    from_reference(golden_data.section(data, 'param')),
  )
  params, stats = variables['params'], variables['batch_stats']
  optimizer = optax.chain(
    optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9)
  )
  opt_state = optimizer.init(params)

  @jax.jit
  def step(params, stats, opt_state, frames, labels):
    def loss(params):
      logits, new = model.apply(
        {'params': params, 'batch_stats': stats},
        frames,
        train=True,
        mutable=['batch_stats'],
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), (logits, new['batch_stats'])

    (value, (logits, new)), gradient = jax.value_and_grad(loss, has_aux=True)(
      params
    )
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    return params, new, opt_state, value, logits, gradient

  def frames(i):
    return golden_data.nhwc(data[f'events{i}']).swapaxes(0, 1)

  for i in range(3):
    params, stats, opt_state, value, logits, gradient = step(
      params, stats, opt_state, frames(i), data[f'label{i}']
    )
    CLOSE(logits, data[f'logits{i}'])
    CLOSE(value, data['losses'][i])
    if i == 0:
      expected = golden_data.section(data, 'grad')
      got = to_reference({'params': gradient})
      assert got.keys() == expected.keys()
      for name in expected:
        error = np.linalg.norm(got[name] - expected[name])
        assert error <= 1e-6 * np.linalg.norm(expected[name]), name
  variables = {'params': params, 'batch_stats': stats}
  logits = jax.jit(model.apply)(variables, frames(0))
  CLOSE(logits, data['logits_eval_after'])
