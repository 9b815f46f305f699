"""Norms of gradients by layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import activity
from tests.activity import network


def test_norms_are_those_of_the_kernels_in_the_order_of_computation():
  model, variables, x = network.tiny()
  order = activity.depth_order(model, jnp.asarray(x))
  norms = activity.gradient_norms(variables['params'], order)
  assert [*norms] == [*network.CONVOLUTIONS, 'voting']
  kernel = variables['params']['layer1_0']['conv2']['kernel']
  expected = np.sqrt(np.square(np.asarray(kernel, np.float64)).sum())
  assert float(norms['layer1_0/conv2']) == pytest.approx(expected, rel=1e-6)


def test_last_to_first_leaves_out_readout_and_projections():
  layers = ['conv1', 'b/conv2', 'b/shortcut_conv', 'voting']
  ratio = lambda *norms: activity.last_to_first(
    dict(zip(layers, norms, strict=True))
  )
  assert ratio(2.0, 6.0, 5.0, 100.0) == 3
  assert ratio(0.0, 6.0, 5.0, 1.0) == np.inf
  assert np.isnan(ratio(0.0, 0.0, 0.0, 0.0))
