"""A step communicates by all-reduces alone, and by few of them."""

import collections
import re

import jax
import jax.numpy as jnp
import pytest

from mlf_jax import data
from mlf_jax.layers.memory_modes import MODES
from mlf_jax.training import sharding
from tests.training import tiny

SHAPE = (8, 8, 1)
COLLECTIVE = re.compile(
  r'= \S.*? (all-reduce|all-gather|reduce-scatter|all-to-all|'
  r'collective-permute|collective-broadcast)(?:-start)?\('
)


def built(memory='fastest'):
  config = tiny.config(batch_size=16, memory=memory)
  return tiny.built(config, SHAPE, sharding.AXIS)


def num_norms(state):
  """tdBN layers of a network."""
  paths = jax.tree_util.tree_leaves_with_path(state.batch_stats)
  return sum(path[-1].key == 'mean' for path, _ in paths)


def lowered(step, *arguments):
  parallel = sharding.DataParallel()
  assert parallel.num_devices == 8
  return parallel.parallelize(step).lower(*arguments)


def batch_of(dataset):
  parallel = sharding.DataParallel()
  return parallel.shard_batch(data.train_batch(dataset.train, 16, 0, 0))


def all_reduces(program):
  """All-reduces as they are handed to XLA, which may merge some."""
  return program.as_text().count('stablehlo.all_reduce')


def test_forward_reduces_mean_and_centred_squares():
  """Two for each tdBN layer: never the mean of the squares."""
  parts = built()

  def forward(variables, batch):
    logits, new = parts.model.apply(
      variables,
      batch['image'].astype(jnp.float32),
      train=True,
      mutable=['batch_stats'],
    )
    # What is not returned is not computed.
    return jax.lax.pmean(logits.sum(), sharding.AXIS), new

  program = lowered(
    forward, parts.state.eval_variables, batch_of(parts.dataset)
  )
  assert all_reduces(program) == 2 * num_norms(parts.state) + 1


@pytest.mark.parametrize('memory', MODES)
def test_step_reduces_four_times_per_norm_and_the_gradients_once(memory):
  """Also where the forward pass is computed again for the backward one."""
  parts = built(memory)
  program = lowered(parts.train_step, parts.state, batch_of(parts.dataset))
  assert all_reduces(program) == 4 * num_norms(parts.state) + 1


def test_compiled_step_holds_nothing_but_all_reduces():
  parts = built()
  program = lowered(parts.train_step, parts.state, batch_of(parts.dataset))
  text = program.compile().as_text()
  found = collections.Counter(COLLECTIVE.findall(text))
  assert found.keys() == {'all-reduce'}
  assert found['all-reduce'] <= 4 * num_norms(parts.state) + 1
  # Gradients, loss and accuracy in one vector.
  size = parts.state.num_parameters + 2
  assert len(re.findall(rf'= f32\[{size}\]\S* all-reduce\(', text)) == 1


def test_evaluation_reduces_once():
  parts = built()
  (batch,) = list(data.eval_batches(parts.dataset.test, 48))[:1]
  program = lowered(
    parts.eval_step,
    parts.state.eval_variables,
    sharding.DataParallel().shard_batch(batch),
  )
  assert all_reduces(program) == 1
