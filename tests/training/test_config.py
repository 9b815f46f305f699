"""Every field of a configuration does something, and is checked."""

import dataclasses
import functools
import inspect
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.training import config as config_lib
from mlf_jax.training import default_config, sharding, workdir
from mlf_jax.training.configured_data import (
  load_dataset,
  load_options,
  sample_spec,
)
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.losses import LOSSES, Loss
from mlf_jax.training.optimizer import make_optimizer, make_schedule
from tests.training import tiny

# Another value for every field of a run on images but those that name a part,
# and those whose effect is on the disk: `data.dir`, `data.manual_dir`,
# `keep_checkpoints`, `init_from` (`test_trainer.py`, `test_archives.py`,
# `test_initial_weights.py`).
OTHER = {
  'seed': 1,
  'batch_size': 32,
  'num_epochs': 7,
  'num_steps': 9,
  'loss': 'other',
  'label_smoothing': 0.1,
  'random_time_steps': True,
  'ema_decay': 0.9,
  'memory': 'balanced',
  'parallel': 'pmap',
  'log_every': 3,
  'log_activity_every': 4,
  'eval_every_epochs': 1.0,
  'eval_batch_size': 32,
  'max_skipped_steps': 3,
  'data.validation': 0.2,
  'data.train_samples': 20,
  'augment.flip': True,
  'augment.crop_padding': 2,
  'augment.cutout': 2,
  'augment.mixup': 0.2,
  'augment.cutmix': 0.2,
  'model.depth': 14,
  'model.widths': (4, 4, 4),
  'model.residual': 'plain',
  'model.shortcut': 'norm',
  'model.scan_blocks': True,
  'model.time_steps': 3,
  'model.normalization': 'other',
  'model.normalize_input': True,
  'model.dtype': 'bfloat16',
  'unit.thresholds': (0.5, 1.5),
  'unit.decay': 0.5,
  'unit.width': 0.5,
  'unit.surrogate': 'sigmoid',
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
}
ON_DISK = {'data.dir', 'data.manual_dir', 'keep_checkpoints', 'init_from'}
PARTS = {'data.name', 'model.name', 'unit.name'}
# The fields of recordings that images do not have, or use in another way.
OTHER_OF_EVENTS = {
  'data.split': 'head',
  'data.binning': 'span',
  'data.window_ms': 0.5,
  'data.downsample': 4.0,
  'data.mirrored': True,
  'data.crop': (8, 8),
  'augment.flip': True,
  'augment.translation': 1,
  'augment.rotation': 10.0,
  'augment.shear': 10.0,
  'augment.cutout': 2,
  'augment.event_drop': 0.1,
  'augment.time_shift': 1,
  'augment.mixup': 0.2,
  'model.time_steps': 3,
}


def test_every_field_is_covered():
  fields = set(config_lib.flatten(default_config()))
  assert fields == set(OTHER) | ON_DISK | PARTS
  frames = set(config_lib.flatten(default_config(data='n_mnist')))
  assert frames - fields <= set(OTHER_OF_EVENTS) <= frames
  vgg = set(config_lib.flatten(default_config(model='spiking_vgg16')))
  assert vgg - fields == {'model.dropout_rate'}


def parts_of_a_run(config, augmentation_only=False):
  """Yields the parts that decide a run's numbers, cheap ones first."""
  timeline = Timeline(config, steps_per_epoch=4)
  steps = range(1, 30)
  yield repr(config_lib.build_model(config, 4))
  yield load_options(config)
  yield (
    timeline.num_steps,
    [timeline.is_log_step(step) for step in steps],
    [timeline.is_eval(step) for step in steps],
    [timeline.is_activity_step(step) for step in steps],
  )
  rates = make_schedule(config, 4, timeline.num_steps)
  yield [float(rates(jnp.int32(i))) for i in range(14)]
  dataset = load_dataset(config, tiny.dataset(sample_spec(config)[0]))
  yield {name: len(split) for name, split in dataset.splits.items()}
  split = dataset.train
  batch = data.train_batch(
    split,
    config.batch_size,
    config.seed,
    0,
    with_partners=data.needs_partners(config.augment),
  )
  yield batch['label'].tobytes()
  yield next(data.eval_batches(split, config.eval_batch_size))['image'].shape
  parallel = sharding.DataParallel(config.parallel)
  yield {k: v.shape for k, v in parallel.shard_batch(batch).items()}
  optimizer, params = make_optimizer(config, rates), jnp.ones(2)
  state = optimizer.init(params)
  yield traced(optimizer.update, params, state, params)
  augment = functools.partial(
    data.augment_batch,
    config.augment,
    config.seed,
    normalize=lambda images: images / 255,
    num_classes=4,
  )
  yield traced(lambda step, batch: augment(step=step, batch=batch), 0, batch)
  if augmentation_only:
    return
  built = tiny.built(config, sample_spec(config)[0])
  yield traced(built.train_step, built.state, batch)


def traced(function, *arguments):
  # Addresses of functions differ from one trace to the next.
  return re.sub(r'0x[0-9a-f]+', '', str(jax.make_jaxpr(function)(*arguments)))


@functools.cache
def parts_of(data_name, **changes):
  """Parts of a configuration that other fields are compared with."""
  images = data_name == 'images'
  return list(parts_of_a_run(base(data_name, **changes), not images))


def base(data_name, **changes):
  """So that the fields of all schedules have something to act on."""
  defaults = {
    'num_epochs': 3,
    'num_steps': 0,
    'batch_size': 16,
    'eval_every_epochs': 2.0,
    'schedule__step_epochs': 2,
  }
  return tiny.config(data_name, **{**defaults, **changes})


@pytest.mark.parametrize('data_name', ['images', 'cifar10_dvs'])
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_every_field_changes_what_a_run_does(data_name, monkeypatch):
  # Small images that may be mirrored, as digits may not.
  images = dataclasses.replace(data.DATASETS['digits'], refused={})
  monkeypatch.setitem(data.DATASETS, 'images', images)
  other = Loss(lambda logits, labels: jnp.square(logits - labels).sum(-1))
  monkeypatch.setitem(LOSSES, 'other', other)
  monkeypatch.setitem(
    config_lib.NORMALIZATIONS, 'other', config_lib.NORMALIZATIONS['tdbn']
  )
  for field, value in (
    OTHER if data_name == 'images' else OTHER_OF_EVENTS
  ).items():
    changes = {}
    if field == 'data.binning':  # Windows have a length, the others none.
      changes = {'data__binning': 'count', 'data__window_ms': 0.0}
    before = base(data_name, **changes)
    after = base(data_name, **{**changes, field.replace('.', '__'): value})
    assert workdir.default_workdir(before) != workdir.default_workdir(after)
    pairs = zip(
      parts_of(data_name, **changes), parts_of_a_run(after), strict=False
    )
    assert any(old != new for old, new in pairs), field


def test_nothing_is_drawn_for_an_augmentation_that_is_off():
  """Nor does an augmentation change how data is loaded."""
  drawn = r'random_(bits|gamma)'
  assert not re.search(drawn, parts_of('cifar10_dvs')[-1])
  dropping = parts_of('cifar10_dvs', augment__event_drop=0.1)[-1]
  assert re.search(drawn, dropping)


CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


# A folder of one's own: `test_folders.py`.
@pytest.mark.parametrize(
  'path',
  [p for p in CONFIGS.glob('*.py') if p.stem not in ('__init__', 'folder')],
)
def test_configuration_files_are_right(path):
  """Frames are those that the data set has by default."""
  get_config = runpy.run_path(str(path))['get_config']
  variants = {
    'cifar10_short': ['ds20', 'plain20', 'lif'],
    'mnist': ['ds8', 'plain44'],
    'fashion_mnist': ['ds8', 'plain44'],
    'fashion_mnist_modern': ['ds8', 'plain44'],
  }.get(path.stem, ['ds20', 'plain44', 'vgg16'])
  if not inspect.signature(get_config).parameters:
    variants = []
  for config in [get_config(), *map(get_config, variants)]:
    config_lib.validate(config, num_devices=1)
    model = config_lib.build_model(config, sample_spec(config)[1])
    stem = re.sub('_(short|modern)$', '', path.stem)
    assert config.data.name == stem
    entry = data.DATASETS[config.data.name]
    assert load_options(config).frames == entry.frames
    stored = config_lib.as_json(config)
    assert config_lib.from_json(stored).to_dict() == config.to_dict()
    assert model.num_classes == entry.num_classes


def test_paper_recipe_is_the_default():
  config = default_config()
  model = config_lib.build_model(config, 10)
  assert (model.stage_sizes, model.widths) == ((3, 3, 3), (64, 128, 256))
  assert (model.unit.thresholds, model.unit.decay) == ((0.6, 1.6, 2.6), 0.25)
  variables = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  parameters = jax.tree.leaves(variables['params'])
  assert sum(np.prod(leaf.shape) for leaf in parameters) == 4_327_754
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
  augment = config.augment.to_dict()
  changed = {name: amount for name, amount in augment.items() if amount}
  assert changed == {'flip': True, 'crop_padding': 4}
  assert config.label_smoothing == config.ema_decay == 0
  schedule = make_schedule(config, 781, 110 * 781)
  rates = [float(schedule(jnp.int32(e * 781))) for e in (0, 39, 40, 80, 109)]
  np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.001, 0.001], rtol=1e-5)
  for name, entry in data.DATASETS.items():
    if entry.is_frames:  # The paper does not augment event data.
      assert not any(default_config(data=name).augment.to_dict().values())


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data__name': 'cifar11'}, r"'cifar11' is unknown \(did you mean 'cifar"),
    ({'model__name': 'spiking_resnt'}, "did you mean 'spiking_resnet'"),
    ({'unit__name': 'mfl'}, r"config\.unit\.name 'mfl' .* 'mlf'"),
    ({'optimizer__name': 'adam'}, "did you mean 'adamw'"),
    ({'loss': 'hinge'}, "config.loss 'hinge' is unknown; known: cross_entropy"),
    ({'model__dtype': 'float16'}, "did you mean 'float64' or 'bfloat16'|did"),
    ({'model__name': 'spiking_vgg16'}, 'is no field of spiking_vgg16'),
    ({'unit__name': 'relu'}, r"by default_config\(unit='relu'\)"),
    ({'data__name': 'n_mnist'}, r"by default_config\(data='n_mnist'\)"),
    ({'batch_size': 60}, 'divided among 8 devices; 64 can'),
    ({'eval_batch_size': 3}, 'config.eval_batch_size 3 cannot .*; 8 can'),
    ({'seed': -1}, 'config.seed must be at least 0, got -1'),
    ({'seed': 2**32}, r'config.seed must be below 2\*\*31'),
    ({'optimizer__momentum': 1.0}, 'at least 0 and below 1, got 1.0'),
    ({'optimizer__learning_rate': 0.0}, 'must be above 0, got 0.0'),
    ({'schedule__step_factor': 1.5}, 'above 0 and at most 1'),
    ({'label_smoothing': float('nan')}, 'label_smoothing must be finite'),
    (
      {'loss': 'tet', 'random_time_steps': True},
      "random_time_steps needs .* config.loss 'tet' trains every timestep",
    ),
  ],
)
def test_mistakes(changes, message):
  with pytest.raises(UserError, match=message) as error:
    config_lib.validate(tiny.config(**changes), num_devices=8)
  assert '\n' not in str(error.value)


def test_stored_configuration_of_another_version():
  stored = config_lib.as_json(tiny.config())
  with pytest.raises(UserError, match='of another version'):
    config_lib.from_json({**stored, 'sead': 1})
