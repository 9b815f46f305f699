"""Training in memory, against a run of the same configuration."""

import chex
import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.training import in_memory, train
from mlf_jax.training.evaluation import restore
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')
SHAPE = (8, 8, 3)


def configuration(**changes):
  return tiny.small(
    'arrays',
    batch_size=16,
    num_steps=0,
    num_epochs=2,
    eval_every_epochs=1.0,
    augment__flip=True,
    schedule__name='cosine',
    **changes,
  )


def trained(config):
  """The last state, and the metrics of each epoch."""
  images, labels = tiny.samples(SHAPE)
  programs = in_memory.programs(config, SHAPE, 4)
  ones = np.ones((1, 1, 1, 3), np.float32)
  epochs = in_memory.train_epochs(
    config,
    programs,
    programs.init(np.int32(config.seed)),
    in_memory.Samples(images, labels, np.ones(len(labels), np.float32)),
    in_memory.Scaling(127.5 * ones, 63.75 * ones),
  )
  lines = [(state, metrics) for state, metrics in epochs]
  return lines[-1][0], [metrics for _, metrics in lines]


@pytest.mark.slow
def test_numbers_are_those_of_a_run(tmp_path):
  config = configuration(optimizer__accumulate_steps=2)
  train(config, tiny.dataset(SHAPE), tmp_path)
  run = restore(tmp_path, 'last', tiny.dataset(SHAPE)).state
  state, metrics = trained(config)
  for name in ('params', 'batch_stats'):
    chex.assert_trees_all_close(
      getattr(state, name), getattr(run, name), rtol=1e-4, atol=1e-5
    )
  assert (state.step, len(metrics)) == (run.step, 2)
  assert metrics[1]['loss'] < metrics[0]['loss']


def test_other_numbers_need_no_other_program():
  trained(configuration())
  misses = in_memory._programs.cache_info().misses
  config = configuration(
    seed=3,
    optimizer__learning_rate=0.01,
    optimizer__weight_decay=0.0,
    schedule__warmup_epochs=1.0,
  )
  trained(config)
  assert in_memory._programs.cache_info().misses == misses
  assert in_memory.programs(config, SHAPE, 4).train_step._cache_size() == 1


def test_steps_that_are_not_finite_end_the_training():
  config = configuration(optimizer__learning_rate=1e38)
  with pytest.raises(
    UserError, match=r'5 steps in a row .* up to epoch 2;'
  ) as e:
    trained(config)
  assert '\n' not in str(e.value)
