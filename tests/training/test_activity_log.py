"""Looking inside during training: lines, warnings, and the same training."""

import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import activity, data
from mlf_jax.activity.capture import in_order
from mlf_jax.models import SpikingResNet
from mlf_jax.training import (
  NETWORKS,
  NetworkEntry,
  activity_log,
  configured_data,
  restore,
  train,
)
from mlf_jax.training.activity_pass import activity_step
from tests import quick
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')


def lines_of(directory, inside):
  """Lines of the metrics, without timings: those with activity, or the rest."""
  text = (directory / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  return [
    {k: v for k, v in line.items() if k != 'train/samples_per_second'}
    for line in lines
    if ('activity/units1/firing_rate' in line) == inside
  ]


def one_block(*, num_classes, time_steps, unit, axis_name, **unused):
  """A spiking network that compiles quickly."""
  return SpikingResNet(
    (1,), (2,), num_classes, time_steps, unit, axis_name=axis_name
  )


NETWORKS['one_block'] = NetworkEntry(one_block)


@pytest.fixture(scope='module')
def observed(tmp_path_factory, quick_compilation):
  """A run on all devices that looks inside after every second step."""
  directory = tmp_path_factory.mktemp('observed')
  config = tiny.config(
    model='one_block', num_steps=4, log_activity_every=2, eval_every_epochs=1.0
  )
  train(config, workdir=directory)
  return config, directory


def test_training_is_the_same_to_the_last_bit(observed, tmp_path):
  config, directory = observed
  config = config.copy_and_resolve_references()
  config.log_activity_every = 0
  train(config, workdir=tmp_path)
  assert [line['step'] for line in lines_of(directory, True)] == [2, 4]
  assert lines_of(tmp_path, True) == []
  assert lines_of(directory, False) == lines_of(tmp_path, False) != []
  one, other = (restore(run, 'last').state for run in (directory, tmp_path))
  chex.assert_trees_all_equal(one, other, strict=True)


def test_eight_devices_write_what_one_device_sees(observed):
  """Of the batch of the last step, with the weights after it."""
  config, directory = observed
  assert jax.device_count() == 8
  _, model, step, state = restore(directory, 'last')
  dataset = configured_data.load_dataset(config)
  batch = data.train_batch(dataset.train, 64, config.seed, step - 1)
  layers, norms = quick.jit(
    lambda state, batch: activity_step(
      state,
      batch,
      model=model,
      config=config,
      normalize=configured_data.normalizer(config, dataset),
    )
  )(jax.tree.map(jnp.asarray, state), batch)
  line = lines_of(directory, True)[-1]
  assert line.pop('step') == 4 and line.pop('epoch') == 1
  order = activity.depth_order(model, jnp.zeros((1, 8, 8, 1)))
  expected = activity_log.scalars(
    in_order(layers, order), in_order(norms, order)
  )
  assert [*line] == [*expected] and 'activity/units1/dormant_share' in line
  for name, value in expected.items():
    # Spikes may differ where a current lies on a threshold to rounding.
    assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
  assert line['activity/conv1/gradient_norm'] > 0
  assert any((directory / 'tensorboard').iterdir())


def layer(*outputs):
  """Activity with so many pairs in which 0, 1 and 2 levels fire."""
  silent, one, two = map(np.asarray, outputs)
  return activity.LayerActivity(
    samples=np.asarray(1),
    pairs=silent + one + two,
    spikes=np.array([one + two, two]),
    in_window=np.zeros(2, int),
    outputs=np.array(outputs),
    dormant=np.asarray(0),
    dormant_throughout=np.zeros(1, int),
    active=np.zeros(1, int),
  )


def log_of(run_pass, written, said):
  parallel = types.SimpleNamespace(parallelize=lambda step: run_pass)
  return activity_log.ActivityLog(
    tiny.config(),
    types.SimpleNamespace(),
    None,
    (8, 8, 1),
    parallel,
    types.SimpleNamespace(write=lambda *line: written.append(line)),
    said.append,
  )


def test_silent_and_saturated_layers_are_named_once(monkeypatch):
  order = ['units1', 'conv1', 'units2', 'units3', 'voting']
  monkeypatch.setattr(activity, 'depth_order', lambda *_: order)
  norms = {'voting': np.float32(1), 'conv1': np.float32(2)}
  passes = iter(
    [
      ({'units1': layer(10000, 9, 0), 'units2': layer(5, 5, 0)}, norms),
      ({'units1': layer(10000, 0, 0), 'units2': layer(0, 9, 91)}, norms),
      ({'units1': layer(0, 0, 9), 'units2': layer(9, 0, 91)}, norms),
    ]
  )
  written, said = [], []
  log = log_of(lambda state, batch: next(passes), written, said)
  for step in (10, 20, 30):
    log.write(step, 1, None, None)
  silent, saturated, later = said
  assert 'units1 is silent at step 10 (firing rate 0.0009 of 2)' in silent
  assert 'config.optimizer.weight_decay' in silent
  assert 'units2 is saturated at step 20 (firing rate 1.9100 of 2)' in saturated
  assert 'units1 is saturated at step 30' in later
  assert all('\n' not in line for line in said)
  assert [(step, epoch) for step, epoch, _ in written] == [
    (10, 1),
    (20, 1),
    (30, 1),
  ]
  assert written[0][2]['activity/units2/firing_rate'] == 0.5


def test_units_that_cannot_be_observed_leave_gradient_norms(monkeypatch):
  monkeypatch.setattr(activity, 'depth_order', lambda *_: ['conv1', 'voting'])
  norms = {'conv1': np.float32(2), 'voting': np.float32(1)}
  written, said = [], []
  log = log_of(lambda state, batch: ({}, norms), written, said)
  log.write(10, 1, None, None)
  log.write(20, 1, None, None)
  assert len(said) == 1 and 'gradient norms alone' in said[0]
  assert written[0][2]['activity/conv1/gradient_norm'] == 2


def test_too_little_memory_ends_the_looking_and_not_the_training():
  def run_pass(state, batch):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')

  written, said = [], []
  log = log_of(run_pass, written, said)
  log.write(10, 1, None, None)
  log.write(20, 1, None, None)
  assert len(said) == 1 and 'too little memory' in said[0] and not written
