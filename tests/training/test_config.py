"""Every field of a configuration does something, and is checked."""

import functools
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.data.frames import FrameSpec
from mlf_jax.training import augmentation, parallel, workdir
from mlf_jax.training import config as config_lib
from mlf_jax.training import optimizer as optimizer_lib
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
  'model.scan_blocks': True,
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
  'memory': 'balanced',
}
ON_DISK = {'data.dir', 'data.manual_dir', 'keep_checkpoints'}
# Of recordings: the fields that images do not have, and those that they share
# but that take another way.
OTHER_OF_EVENTS = {
  'data.name': 'n_mnist',
  'data.split': 'head',
  'data.binning': 'span',
  'data.window_ms': 0.5,
  'data.downsample': 4.0,
  'augment.flip': True,
  'augment.translation': 1,
  'augment.rotation': 10.0,
  'augment.cutout': 2,
  'augment.event_drop': 0.1,
  'augment.time_shift': 1,
  'augment.mixup': 0.2,
  'model.time_steps': 3,
}


def base(model, depth=8):
  if model == 'spiking_vgg16':
    config = config_lib.default(model)
    config.data.name, config.model.time_steps = 'digits', 1
    return config
  return tiny.config(
    num_epochs=3,
    num_steps=0,
    # So that the other schedules' own fields have something to act on.
    schedule__step_epochs=2,
    model__depth=depth,
  )


def simulate_data(monkeypatch, shape, n=256):
  """Puts small random samples in the place of data sets.

  Returns:
    A list that gets the arguments with which a data set is asked for.
  """
  calls = []

  def load(name, split, **options):
    calls.append((name, split, options))
    frames = options.get('frames')
    time = () if frames is None else (frames.time_steps,)
    return tiny.dataset((*time, *shape), n=n, split=split)

  monkeypatch.setattr(data, 'load', load)
  return calls


def behaviour(config):
  """What a run of the configuration would do, without training it."""
  is_vgg = config.model.name == 'spiking_vgg16'
  shape = (32, 32, 3) if is_vgg else (8, 8, 1)
  with pytest.MonkeyPatch.context() as monkeypatch:
    calls = simulate_data(monkeypatch, shape)
    train_set = run_lib.load_split(config, 'train')
  schedule = run_lib.Schedule(config, train_set)
  steps = run_lib.make_steps(config, train_set, schedule)
  batch = data.train_batch(
    train_set,
    config.batch_size,
    config.seed,
    0,
    with_partners=augmentation.mixes(config),
  )

  def init():
    return state_lib.init_state(
      steps.model,
      steps.optimizer,
      config.seed,
      train_set.images.shape[1:],
      config.ema_decay > 0,
    )

  across = parallel.DataParallel(config.parallel)
  traced = jax.make_jaxpr(
    lambda *args: steps.train(*args), axis_env=[(parallel.AXIS, 1)]
  )(jax.eval_shape(init), batch)
  rates = optimizer_lib.make_schedule(
    config, schedule.steps_per_epoch, schedule.num_steps
  )
  return {
    'source': calls,
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
  of_events = set(config_lib.flatten(config_lib.default(data_name='n_mnist')))
  assert of_events - fields <= set(OTHER_OF_EVENTS) <= of_events
  for name in data.event_names():
    other = config_lib.flatten(config_lib.default(data_name=name))
    assert set(other) == of_events


@pytest.mark.parametrize('field', OTHER)
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_field_changes_what_a_run_does(field):
  of_vgg = field == 'model.dropout_rate'
  model = 'spiking_vgg16' if of_vgg else 'spiking_resnet'
  depth = 14 if field == 'model.scan_blocks' else 8  # With blocks alike.
  if field == 'model.name':
    new = behaviour_of_images(OTHER[field])
  else:
    before = base(model, depth)
    after = changed(before, field, OTHER[field])
    assert workdir.default(before) != workdir.default(after)
    new = behaviour(after)
  assert behaviour_of_images(model, depth) != new


def changed(config, field, value):
  config = config.copy_and_resolve_references()
  *path, leaf = field.split('.')
  node = config
  for part in path:
    node = node[part]
  node[leaf] = value
  return config


@functools.cache
def behaviour_of_images(model, depth=8):
  return behaviour(base(model, depth))


@functools.cache
def behaviour_of_events(**changes):
  return behaviour(tiny.config('cifar10_dvs', **changes))


@pytest.mark.parametrize('field', OTHER_OF_EVENTS)
def test_field_of_events_changes_what_a_run_does(field):
  changes = {}
  if field == 'data.binning':  # The length of a window belongs to one of them.
    changes = {'data__binning': 'count', 'data__window_ms': 0.0}
  before = tiny.config('cifar10_dvs', **changes)
  after = changed(before, field, OTHER_OF_EVENTS[field])
  assert workdir.default(before) != workdir.default(after)
  old, new = behaviour_of_events(**changes), behaviour(after)
  assert old != new
  # Augmentation is of data that is read in the same way.
  is_augmentation = field.startswith('augment')
  assert (old['source'] == new['source']) == is_augmentation
  # Nothing is drawn for an augmentation that is off.
  assert not re.search(r'random_(bits|gamma)', old['step'])
  drawn = re.search(r'random_(bits|gamma)', new['step'])
  assert (drawn is not None) == is_augmentation


@pytest.mark.parametrize(
  ('name', 'changes', 'split_name', 'frames'),
  [
    ('dvs_gesture', {}, '', FrameSpec(2, 'window', 30_000, 4.0)),
    ('cifar10_dvs', {}, 'tail', FrameSpec(2, 'window', 10_000, 3.04)),
    ('n_mnist', {}, '', FrameSpec(2, 'window', 30_000, 1.0)),
    ('moving_digits', {}, '', FrameSpec(2, 'window', 10_000, 2.0)),
    (
      'cifar10_dvs',
      {
        'data__split': 'random-7',
        'data__binning': 'count',
        'data__window_ms': 0.0,
        'data__downsample': 2.0,
        'model__time_steps': 5,
      },
      'random-7',
      FrameSpec(5, 'count', downsample=2.0),
    ),
    (
      'n_mnist',
      {'data__window_ms': 0.001},
      '',
      FrameSpec(2, 'window', 1),
    ),
  ],
)
def test_recordings_are_asked_for_as_configured(
  monkeypatch, name, changes, split_name, frames
):
  config = tiny.config(name, data__dir='D', data__manual_dir='M', **changes)
  config_lib.validate(config, num_devices=8)
  calls = simulate_data(monkeypatch, (8, 8, 2))
  run_lib.load(config)
  options = {
    'data_dir': 'D',
    'manual_dir': 'M',
    'split_name': split_name,
    'frames': frames,
  }
  assert calls == [(name, 'train', options), (name, 'test', options)]


CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize(
  ('name', 'frames'),
  [
    ('dvs_gesture', FrameSpec(40, 'window', 30_000, 4.0)),
    ('cifar10_dvs', FrameSpec(10, 'window', 10_000, 3.04)),
    ('n_mnist', FrameSpec(10, 'window', 30_000, 1.0)),
    ('moving_digits', FrameSpec(10, 'window', 10_000, 2.0)),
  ],
)
def test_configurations_ask_for_the_default_frames(monkeypatch, name, frames):
  calls = simulate_data(monkeypatch, (8, 8, 2))

  def asked():
    config = runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config']()
    config_lib.validate(config, num_devices=1)
    run_lib.load_split(config, 'train')
    return calls.pop()[2]['frames']

  assert asked() == data.default_frames(name) == frames
  # Nothing of it stands anywhere else.
  other = FrameSpec(7, 'count', downsample=5.5)
  monkeypatch.setattr(data, 'default_frames', {name: other}.__getitem__)
  assert asked() == other


def test_images_are_asked_for_without_frames(monkeypatch):
  calls = simulate_data(monkeypatch, (8, 8, 1))
  run_lib.load(tiny.config())
  assert [call[2] for call in calls] == [{'data_dir': '', 'manual_dir': ''}] * 2


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


EVENT_MISTAKES = [
  ({'augment__event_drop': 1.0}, r'augment.event_drop must be in \[0, 1\)'),
  ({'augment__event_drop': -0.1}, r'in \[0, 1\), got -0.1'),
  ({'augment__rotation': 181.0}, r'augment.rotation must be in \[0, 180\]'),
  ({'augment__rotation': -1.0}, r'augment.rotation must be in \[0, 180\]'),
  ({'augment__translation': -1}, 'augment.translation must be at least 0'),
  ({'augment__cutout': -1}, 'augment.cutout must be at least 0, got -1'),
  ({'augment__time_shift': -1}, 'augment.time_shift must be at least 0'),
  ({'augment__time_shift': 2}, 'must be below config.model.time_steps 2, got'),
  ({'augment__mixup': -0.5}, 'config.augment.mixup must be at least 0'),
  ({'augment__mixup': float('inf')}, 'config.augment.mixup must be finite'),
  ({'augment__mixup': 0.5, 'batch_size': 1}, 'batch_size of at least 2, got 1'),
  ({'data__downsample': 0.5}, 'config.data.downsample must be at least 1'),
  ({'data__binning': 'windows'}, "did you mean 'window'"),
  ({'data__window_ms': 0.0}, "at least 0.001, .* 'window', got 0.0"),
  ({'data__window_ms': -30.0}, "at least 0.001, .* 'window', got -30.0"),
  ({'data__binning': 'span'}, "must be 0.0 with .*'span', .*, got 10.0"),
  ({'data__split': ''}, "config.data.split must not be '' for cifar10_dvs"),
  ({'data__split': 'taill'}, "config.data.split: .*'taill' is unknown"),
  ({'data__split': 'random-x'}, "config.data.split: .*'random-x' is unknown"),
  ({'data__split': 'random-7\n'}, 'config.data.split: .* is unknown'),
  (
    {'data__name': 'n_mnist', 'data__split': 'tail'},
    "config.data.split must be '' for n_mnist, .*, got 'tail'",
  ),
  (
    {'data__name': 'dvs_gesture', 'data__split': '', 'augment__flip': True},
    'flip must be False for dvs_gesture: a mirrored gesture is one of another',
  ),
  (
    {'data__name': 'digits'},
    'config.augment.crop_padding is missing for digits; instead of changing '
    'config.data.name, .*, such as configs/digits.py',
  ),
]


@pytest.mark.parametrize(('changes', 'message'), EVENT_MISTAKES)
def test_mistakes_with_recordings(changes, message):
  config = tiny.config('cifar10_dvs', **changes)
  with pytest.raises(UserError, match=message) as error:
    config_lib.validate(config, num_devices=1)
  assert '\n' not in str(error.value)


def test_recordings_need_a_configuration_that_starts_from_them():
  with pytest.raises(UserError) as error:
    config_lib.validate(tiny.config(data__name='dvs_gesture'), num_devices=8)
  assert str(error.value) == (
    'config.augment.crop_padding is no field of dvs_gesture; instead of '
    'changing config.data.name, use a configuration that starts from it, such '
    'as configs/dvs_gesture.py'
  )


@pytest.mark.parametrize('field', ['translation', 'cutout'])
def test_no_more_pixels_than_the_frames_have(monkeypatch, field):
  simulate_data(monkeypatch, (9, 8, 2))
  config = tiny.config('n_mnist')
  config.augment[field] = 8
  run_lib.load(config)
  config.augment[field] = 9
  message = f'augment.{field} must be at most 8, the side of the images of'
  with pytest.raises(UserError, match=message):
    run_lib.load(config)


@pytest.mark.parametrize('name', data.event_names())
def test_recordings_are_not_augmented_unless_asked_to(name):
  augment = config_lib.default(data_name=name).augment
  assert not any(augment.to_dict().values())
  config = tiny.config(
    name,
    augment__flip=name != 'dvs_gesture',
    augment__rotation=180.0,
    augment__time_shift=1,
    augment__mixup=1.0,
  )
  config_lib.validate(config, num_devices=8)
  stored = config_lib.as_json(config)
  assert config_lib.from_json(stored).to_dict() == config.to_dict()


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
