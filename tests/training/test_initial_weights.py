"""A run that starts from the weights of another one."""

import dataclasses

import chex
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.training import restore, train
from mlf_jax.training.initial_weights import with_weights_of
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A finished run, with averaged weights."""
  workdir = tmp_path_factory.mktemp('source')
  train(tiny.small(ema_decay=0.5), workdir=workdir)
  return workdir


def arrays_of(num_classes):
  digits = data.load('digits')
  keep = [split.labels < num_classes for split in (digits.train, digits.test)]
  return data.from_arrays(
    digits.train.images[keep[0]],
    digits.train.labels[keep[0]],
    digits.test.images[keep[1]],
    digits.test.labels[keep[1]],
  )


def first_state(init_from, workdir, dataset=None, **changes):
  """State that a run begins with: nothing is learned in its only step."""
  name = 'digits' if dataset is None else 'arrays'
  config = tiny.config(
    name,
    'small',
    init_from=str(init_from),
    num_steps=1,
    optimizer__learning_rate=1e-30,
    **changes,
  )
  train(config, dataset, workdir)
  return restore(workdir, 'last', dataset).state


def test_weights_and_averages_of_the_best_checkpoint_are_taken(
  source, tmp_path, capsys
):
  best = restore(source, 'best')
  state = first_state(source, tmp_path / 'run')
  chex.assert_trees_all_equal(state.params, best.state.ema_params)
  assert f'weights of step {best.step} in {source}' in capsys.readouterr().out
  # A checkpoint may be named, and the run may keep averages.
  last = restore(source, 'last')
  place = source / 'checkpoints' / str(last.step)
  state = first_state(place, tmp_path / 'other', ema_decay=0.5)
  for params in (state.params, state.ema_params):
    chex.assert_trees_all_equal(params, last.state.ema_params)


def test_the_last_layer_is_drawn_anew_for_other_classes(
  source, tmp_path, capsys
):
  state = first_state(source, tmp_path / 'run', arrays_of(7))
  drawn = first_state('', tmp_path / 'drawn', arrays_of(7))
  taken = restore(source, 'best').state.ema_params
  out = capsys.readouterr().out
  for name, layer in state.params.items():
    for key, leaf in layer.items():
      is_last = leaf.shape[-1] == 7
      expected = (drawn.params if is_last else taken)[name][key]
      np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-25)
      assert (f'{name}/{key}' in out) == is_last
  assert 'drawn anew for 7 classes' in out


def test_weights_are_taken_at_the_first_start_alone(source, tmp_path):
  workdir = tmp_path / 'run'
  config = dict(init_from=str(source), schedule__name='constant')
  train(tiny.small(num_steps=2, **config), workdir=workdir)
  # The source is not needed any more.
  moved = source.rename(tmp_path / 'elsewhere')
  try:
    result = train(tiny.small(num_steps=4, **config), workdir=workdir)
  finally:
    moved.rename(source)
  train(tiny.small(num_steps=4, **config), workdir=tmp_path / 'direct')
  assert result['steps'] == 4
  chex.assert_trees_all_equal(
    restore(workdir, 'last').state, restore(tmp_path / 'direct', 'last').state
  )


def test_what_cannot_be_taken_is_named_before_anything_is_written(
  source, tmp_path
):
  workdir = tmp_path / 'run'
  with pytest.raises(UserError, match='neither the workdir of a run'):
    first_state(tmp_path / 'nowhere', workdir)
  images, labels = np.zeros((70, 9, 9, 1), np.uint8), np.arange(70) % 10
  other = data.from_arrays(images, labels, images, labels)
  with pytest.raises(UserError, match=r'is of another network: Dense_0/kernel'):
    first_state(source, workdir, other)
  assert not workdir.exists()


def test_the_state_is_otherwise_as_it_was(source):
  state = tiny.built(tiny.small(), (8, 8, 1)).state
  new = with_weights_of(state, source, 4, say=lambda line: None)
  same = dataclasses.replace(
    new, params=state.params, batch_stats=state.batch_stats
  )
  chex.assert_trees_all_equal(same, state)
