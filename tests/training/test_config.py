"""Every field of a configuration does something, and is checked."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.training import config as config_lib
from mlf_jax.training import optimizer as optimizer_lib
from mlf_jax.training import parallel, workdir
from mlf_jax.training import run as run_lib
from mlf_jax.training import state as state_lib
from tests.training import tiny

# Another value for every field but those whose effect is on the disk:
# data.dir, data.manual_dir, keep_checkpoints (`test_loop.py`,
# `test_cifar_run.py`).
OTHER = {
  'seed': 1,
  'batch_size': 32,
  'num_epochs': 7,
  'num_steps': 9,
  'label_smoothing': 0.1,
  'ema_decay': 0.9,
  'data.name': 'cifar10',
  'augment.flip': True,
  'augment.crop_padding': 2,
  'model.name': 'spiking_vgg16',
  'model.depth': 14,
  'model.widths': (4, 4, 4),
  'model.residual': 'plain',
  'model.shortcut': 'norm',
  'model.dropout_rate': 0.5,
  'model.time_steps': 3,
  'model.thresholds': (0.5, 1.5),
  'model.decay': 0.5,
  'model.width': 0.5,
  'model.surrogate': 'sigmoid',
  'model.normalize_input': True,
  'model.dtype': 'bfloat16',
  'optimizer.name': 'adamw',
  'optimizer.learning_rate': 0.3,
  'optimizer.momentum': 0.5,
  'optimizer.nesterov': True,
  'optimizer.weight_decay': 0.1,
  'optimizer.clip_norm': 1.0,
  'optimizer.accumulate_steps': 2,
  'schedule.name': 'cosine',
  'schedule.step_epochs': 1,
  'schedule.step_factor': 0.7,
  'schedule.warmup_epochs': 1.0,
  'parallel': 'pmap',
  'log_every': 3,
  'eval_every_epochs': 1.0,
  'eval_batch_size': 32,
  'max_skipped_steps': 3,
}
ON_DISK = {'data.dir', 'data.manual_dir', 'keep_checkpoints'}


def base(field):
  changes = {
    'num_epochs': 3,
    'num_steps': 0,
    # So that the other schedules' own fields have something to act on.
    'schedule__step_epochs': 2,
  }
  if field == 'model.dropout_rate':
    config = config_lib.default('spiking_vgg16')
    config.data.name, config.model.time_steps = 'digits', 1
    return config
  return tiny.config(**changes)


def behaviour(config):
  """What a run of the configuration would do, without training it."""
  is_vgg = config.model.name == 'spiking_vgg16'
  shape = (32, 32, 3) if is_vgg else (8, 8, 1)
  sources = []

  def load(name, split):
    sources.append(name)
    return tiny.dataset(shape, n=256, split=split)

  train_set = load(config.data.name, 'train')
  schedule = run_lib.Schedule(config, train_set)
  steps = run_lib.make_steps(config, train_set, schedule)
  batch = data.train_batch(train_set, config.batch_size, config.seed, 0)

  def init():
    return state_lib.init_state(
      steps.model, steps.optimizer, config.seed, shape, config.ema_decay > 0
    )

  across = parallel.DataParallel(config.parallel)
  traced = jax.make_jaxpr(
    lambda *args: steps.train(*args), axis_env=[(parallel.AXIS, 1)]
  )(jax.eval_shape(init), batch)
  rates = optimizer_lib.make_schedule(
    config, schedule.steps_per_epoch, schedule.num_steps
  )
  return {
    'source': tuple(sources),
    # Addresses of functions differ from one trace to the next.
    'step': re.sub(r'0x[0-9a-f]+', '', str(traced)),
    'init': str(jax.make_jaxpr(init)()),
    'batch': batch['label'].tobytes(),
    'rates': tuple(float(rates(jnp.int32(i))) for i in range(14)),
    'lines': tuple(bool(schedule.is_line(i)) for i in range(1, 30)),
    'evals': tuple(bool(schedule.is_eval(i)) for i in range(1, 30)),
    'num_steps': schedule.num_steps,
    'eval_shape': next(data.eval_batches(train_set, config.eval_batch_size))[
      'image'
    ].shape,
    'placement': {k: v.shape for k, v in across.put(batch).items()},
  }


def test_every_field_is_covered():
  fields = set(config_lib.flatten(config_lib.default()))
  fields |= set(config_lib.flatten(config_lib.default('spiking_vgg16')))
  assert set(OTHER) | ON_DISK == fields


@pytest.mark.parametrize('field', OTHER)
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_field_changes_what_a_run_does(field):
  before = base(field)
  if field == 'model.name':
    after = base('model.dropout_rate')
  else:
    after = before.copy_and_resolve_references()
    *path, leaf = field.split('.')
    node = after
    for part in path:
      node = node[part]
    node[leaf] = OTHER[field]
    assert workdir.default(before) != workdir.default(after)
  assert behaviour(before) != behaviour(after)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data__name': 'cifar11'}, r"'cifar11' is unknown \(did you mean 'cifar"),
    ({'model__name': 'resnet'}, "did you mean 'spiking_resnet'"),
    ({'optimizer__name': 'adam'}, "did you mean 'adamw'"),
    ({'schedule__name': 'cosin'}, "did you mean 'cosine'"),
    ({'parallel': 'pjit'}, 'known: shard_map, pmap'),
    ({'model__surrogate': 'arctangent'}, "did you mean 'arctan'"),
    ({'model__dtype': 'float16'}, "did you mean 'float64' or 'bfloat16'|did"),
    ({'model__name': 'spiking_vgg16'}, 'is no field of spiking_vgg16'),
    ({'batch_size': 0}, 'config.batch_size must be at least 1, got 0'),
    ({'batch_size': 60}, 'divided among 8 devices; 64 can'),
    ({'eval_batch_size': 3}, 'config.eval_batch_size 3 cannot .*; 8 can'),
    ({'seed': -1}, 'config.seed must be at least 0, got -1'),
    ({'model__time_steps': 0}, 'config.model.time_steps must be at least 1'),
    ({'optimizer__momentum': 1.0}, r'in \[0, 1\), got 1.0'),
    ({'optimizer__learning_rate': 0.0}, 'must be positive, got 0.0'),
    ({'schedule__step_factor': 1.5}, r'in \(0, 1\], got 1.5'),
    ({'ema_decay': 1.0}, r'config.ema_decay must be in \[0, 1\)'),
    ({'label_smoothing': float('nan')}, 'label_smoothing must be finite'),
    ({'label_smoothing': 1.0}, 'config.label_smoothing must be in'),
    ({'max_skipped_steps': 0}, 'config.max_skipped_steps must be at least 1'),
  ],
)
def test_mistakes(changes, message):
  with pytest.raises(UserError, match=message) as error:
    config_lib.validate(tiny.config(**changes), num_devices=8)
  assert '\n' not in str(error.value)


def test_stored_configuration_reads_back():
  config = tiny.config(seed=5, model__widths=(2, 2, 2))
  stored = config_lib.as_json(config)
  assert config_lib.from_json(stored).to_dict() == config.to_dict()
  assert config_lib.differing_fields(stored, stored) == []
  other = config_lib.as_json(tiny.config(seed=6, model__widths=(2, 2, 2)))
  assert config_lib.differing_fields(stored, other) == [
    'config.seed: 5 here, 6 there'
  ]
  with pytest.raises(UserError, match='of another version'):
    config_lib.from_json({**stored, 'sead': 1})


def test_epochs_change_after_their_last_step():
  config = tiny.config(batch_size=16)
  schedule = run_lib.Schedule(config, tiny.dataset((8, 8, 1), n=70))
  assert schedule.steps_per_epoch == 4
  assert [schedule.epoch(step) for step in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_paper_recipe_is_the_default():
  config = config_lib.default()
  model = config_lib.make_model(config, 10, None)
  assert (model.stage_sizes, model.widths) == ((3, 3, 3), (64, 128, 256))
  assert (config.batch_size, config.num_epochs) == (64, 110)
  assert config.optimizer.to_dict() == {
    'name': 'sgd',
    'learning_rate': 0.1,
    'momentum': 0.9,
    'nesterov': False,
    'weight_decay': 1e-4,
    'clip_norm': 0.0,
    'accumulate_steps': 1,
  }
  assert config.augment.to_dict() == {'flip': True, 'crop_padding': 4}
  assert config.label_smoothing == config.ema_decay == 0
  schedule = optimizer_lib.make_schedule(config, 781, 110 * 781)
  rates = [float(schedule(jnp.int32(e * 781))) for e in (0, 39, 40, 80, 109)]
  np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.001, 0.001], rtol=1e-5)
