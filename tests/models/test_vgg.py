"""Spiking VGG: parameters, pools, dropout, mistakes."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, models
from mlf_jax.layers import MLF
from mlf_jax.models import SpikingVGG
from tests import quick

# Thresholds so low that the deep layers fire at initialisation already.
SMALL = functools.partial(
  SpikingVGG,
  num_classes=10,
  time_steps=1,
  unit=MLF((0.05, 1.05, 2.05)),
  widths=((4, 4), (8,)),
)


@pytest.fixture(autouse=True)
def flax_pools():
  """Flax's average pool divides by an integer."""
  with jax.numpy_dtype_promotion('standard'):
    yield


def images(batch=4, dtype=jnp.float32):
  return jax.random.normal(jax.random.key(1), (batch, 6, 6, 3), dtype)


def test_the_network_of_the_paper():
  model = models.spiking_vgg16()
  assert model.dropout_rate == 0.25
  variables = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  leaves = jax.tree.leaves(variables['params'])
  assert sum(np.prod(v.shape) for v in leaves) == 15_119_690


def test_weights_are_uniform_with_bias_and_drop_out():
  model, x = SMALL(), images()
  variables = quick.jit(model.init)(jax.random.key(0), x)
  conv = variables['params']['feature1_conv']
  bound = (9 * 4) ** -0.5
  for leaf in (conv['kernel'], conv['bias']):
    assert 0.7 * bound < np.abs(leaf).max() <= bound

  @quick.jit
  def train(key):
    return model.apply(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )[0]

  assert np.any(train(jax.random.key(0)) != train(jax.random.key(1)))


def test_static_image_equals_its_copies(x64):
  model = SMALL(time_steps=2, dropout_rate=0.0, dtype='float64')
  x = images(2, jnp.float64)
  variables = quick.variables(model, x)
  train = quick.jit(
    functools.partial(model.apply, train=True, mutable=['batch_stats'])
  )
  chex.assert_trees_all_close(
    train(variables, x),
    train(variables, jnp.repeat(x[:, None], 2, axis=1)),
    rtol=1e-10,
    atol=1e-10,
  )


def test_spikes_are_averaged_and_fire_between_dense_layers():
  model = SMALL(dropout_rate=0.0)
  x = images()
  variables = quick.variables(model, x)

  @quick.jit
  def inputs_of_layers(variables):
    seen = {}

    def record(call, args, kwargs, context):
      if args and isinstance(args[0], jax.Array):
        seen[context.module.name] = args[0]
      return call(*args, **kwargs)

    with nn.intercept_methods(record):
      # The statistics of the batch keep all layers firing.
      model.apply(variables, x, train=True, mutable=['batch_stats'])
    return {name: value for name, value in seen.items() if name}

  seen = {k: np.asarray(v) for k, v in inputs_of_layers(variables).items()}
  for pooled in ('feature3_conv', 'classifier0'):
    quarters = 4 * seen[pooled]
    np.testing.assert_array_equal(quarters, np.round(quarters))
    assert np.any(quarters % 4 != 0)
  for fired in ('feature1_conv', 'classifier3', 'classifier6'):
    spikes = seen[fired]
    np.testing.assert_array_equal(spikes, np.round(spikes))
    assert 0 < spikes.max() <= 3


def test_mistakes():
  with pytest.raises(UserError, match='32 to 63 pixels per side, got 6x6'):
    models.spiking_vgg16().init(jax.random.key(0), images())
  with pytest.raises(UserError, match=r'dropout_rate must lie in \[0, 1\)'):
    SMALL(dropout_rate=1.0)
