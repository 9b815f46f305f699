"""Training steps of the paper's networks lower for GPU and TPU."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import optax
import pytest

from mlf_jax import models
from mlf_jax.training import config as config_lib
from mlf_jax.training import sharding
from mlf_jax.training.state import drawn_state
from mlf_jax.training.step import train_step


@pytest.mark.slow
@pytest.mark.parametrize(
  ('network', 'shape'),
  [
    (
      functools.partial(
        models.ds_resnet20_cifar10, scan_blocks=True, memory='smallest'
      ),
      (32, 32, 3),
    ),
    (models.ds_resnet20_dvs_gesture, (40, 32, 32, 2)),
    (models.ds_resnet14_cifar10_dvs, (10, 42, 42, 2)),
  ],
)
def test_train_step_lowers(network, shape):
  with jax.numpy_dtype_promotion('standard'):  # As optax needs.
    model = network(axis_name=sharding.AXIS)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    state = jax.eval_shape(
      lambda key: drawn_state(model, optimizer, key, shape, ema=False),
      jax.random.key(0),
    )
    parallel = sharding.DataParallel()
    state = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=parallel.replicated
      ),
      state,
    )
    batch = {
      name: jax.ShapeDtypeStruct((16, *rest), dtype, sharding=parallel.divided)
      for name, rest, dtype in (
        ('image', shape, jnp.uint8),
        ('label', (), jnp.int32),
        ('position', (), jnp.int32),
      )
    }
    step = functools.partial(
      train_step,
      model=model,
      optimizer=optimizer,
      config=config_lib.default(),
      normalize=lambda images: images.astype(jnp.float32),
    )
    exported = jax.export.export(
      parallel.parallelize(step), platforms=('cuda', 'tpu')
    )(state, batch)
  assert exported.platforms == ('cuda', 'tpu')
  assert exported.nr_devices == 8
  assert 'stablehlo.convolution' in exported.mlir_module()
