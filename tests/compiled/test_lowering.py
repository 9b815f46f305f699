"""What training steps lower to: for GPU and TPU, and how much of it."""

import dataclasses
import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import pytest

from mlf_jax import data, models
from mlf_jax.training import config as config_lib
from mlf_jax.training import parallel
from mlf_jax.training import run as run_lib
from mlf_jax.training import state as state_lib
from tests import quick
from tests.training import tiny

PAPER = {
  'cifar10': (models.ds_resnet20_cifar10, (32, 32, 3), 10),
  'dvs_gesture': (models.ds_resnet20_dvs_gesture, (40, 32, 32, 2), 11),
  'cifar10 in loops': (
    functools.partial(
      models.ds_resnet20_cifar10, scan_blocks=True, memory='smallest'
    ),
    (32, 32, 3),
    10,
  ),
  'cifar10_dvs': (models.ds_resnet14_cifar10_dvs, (10, 42, 42, 2), 10),
}


@pytest.mark.parametrize('name', PAPER)
def test_train_step_lowers(name):
  network, shape, num_classes = PAPER[name]
  config = config_lib.default()
  dataset = tiny.dataset(shape, n=64, num_classes=num_classes)
  steps = run_lib.make_steps(config, dataset, run_lib.Schedule(config, dataset))
  steps = dataclasses.replace(steps, model=network(axis_name=parallel.AXIS))
  state = jax.eval_shape(
    lambda: state_lib.init_state(
      steps.model, steps.optimizer, 0, shape, ema=False
    )
  )
  across = parallel.DataParallel()
  state = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=across.replicated
    ),
    state,
  )
  size = 16
  batch = {
    name: jax.ShapeDtypeStruct((size, *rest), dtype, sharding=across.divided)
    for name, rest, dtype in (
      ('image', shape, jnp.uint8),
      ('label', (), jnp.int32),
      ('position', (), jnp.int32),
    )
  }
  exported = jax.export.export(
    across.map(steps.train), platforms=('cuda', 'tpu')
  )(state, batch)
  assert exported.platforms == ('cuda', 'tpu')
  assert exported.nr_devices == 8
  assert 'stablehlo.convolution' in exported.mlir_module()


def test_compiled_step_is_linear_in_the_parameters():
  """What decides on every parameter is computed once, not once for each."""
  config = tiny.config()
  dataset = tiny.dataset((8, 8, 1), n=64)
  steps = run_lib.make_steps(
    config, dataset, run_lib.Schedule(config, dataset), axis_name=None
  )
  state = jax.eval_shape(
    lambda: state_lib.init_state(
      steps.model, steps.optimizer, 0, (8, 8, 1), ema=False
    )
  )
  batch = data.train_batch(dataset, 64, 0, 0)
  compiled = quick.jit(steps.train).lower(state, batch).compile()
  leaves = len(jax.tree.leaves(state.params))
  decisions = len(re.findall(r' and\(', compiled.as_text()))
  assert leaves < decisions < 10 * leaves
