"""Data and configuration fit, or one line says why not."""

import pytest

from mlf_jax import UserError, data
from mlf_jax.data import DATASETS, DatasetEntry, FrameSpec
from mlf_jax.training import default_config, train
from mlf_jax.training.configured_data import (
  load_dataset,
  load_options,
  sample_spec,
)
from tests.training import tiny


@pytest.mark.parametrize(
  ('name', 'changes', 'split_name', 'frames'),
  [
    ('dvs_gesture', {}, '', FrameSpec(2, 'window', 30_000, 4.0)),
    ('cifar10_dvs', {}, 'tail', FrameSpec(2, 'window', 10_000, 3.04)),
    (
      'cifar10_dvs',
      {
        'data__split': 'random-7',
        'data__binning': 'count',
        'data__window_ms': 0.0,
        'data__downsample': 2.0,
        'data__mirrored': True,
        'data__crop': (100, 120),
        'model__time_steps': 5,
      },
      'random-7',
      FrameSpec(5, 'count', 0, 2.0, True, (100, 120)),
    ),
    ('n_mnist', {'data__window_ms': 0.001}, '', FrameSpec(2, 'window', 1)),
    ('digits', {}, '', None),
  ],
)
def test_data_is_asked_for_as_configured(name, changes, split_name, frames):
  config = tiny.config(name, data__dir='D', data__manual_dir='M', **changes)
  assert load_options(config) == data.LoadOptions(frames, split_name, 'D', 'M')


@pytest.mark.parametrize(
  ('name', 'field', 'value', 'message'),
  [
    ('digits', 'augment__crop_padding', 9, 'must be at most 8, the side'),
    ('n_mnist', 'augment__cutout', 35, 'cutout must be at most 34, the side'),
    ('n_mnist', 'augment__time_shift', 2, r'most 1, less than .*\.time_steps'),
    ('n_mnist', 'data__window_ms', 0.0, 'config.data.window_ms must be above'),
    ('n_mnist', 'data__crop', (0, 5), 'config.data: crop must be pos'),
    ('n_mnist', 'data__crop', (35, 34), 'crop must be .* 34 x 34 pixels, got'),
    ('n_mnist', 'data__binning', 'span', r'window_ms must be 0.0 .*got 30'),
    ('cifar10_dvs', 'data__split', '', "must not be '' for .*; 'tail' is"),
    ('cifar10_dvs', 'data__split', 'taill', "config.data: .*'taill' is unkn"),
    ('cifar10_dvs', 'data__split', 'random-7\n', 'config.data: .* is unknown'),
    ('n_mnist', 'data__split', 'tail', "must be '' for n_mnist, which comes"),
    ('dvs_gesture', 'augment__flip', True, 'flip must be False .*: .*mirrored'),
    *(
      (name, 'augment__flip', True, 'must be False for .*: .* is no digit')
      for name in ('digits', 'moving_digits', 'n_mnist')
    ),
  ],
)
def test_mistakes(name, field, value, message):
  with pytest.raises(UserError, match=message) as error:
    sample_spec(tiny.config(name, **{field: value}))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', DATASETS)
def test_augmentations_that_change_the_class_are_off_by_default(name):
  augment = default_config(data=name).augment
  assert not any(augment[field] for field in DATASETS[name].refused)


def test_images_of_ones_own_are_not_augmented_by_default(monkeypatch):
  entry = DatasetEntry(lambda options: IMAGES, 4, (8, 8, 1))
  monkeypatch.setitem(DATASETS, 'own', entry)
  for name in ('arrays', 'folder', 'own'):
    assert not any(default_config(data=name).augment.to_dict().values())
  assert default_config(data='fashion_mnist').augment.crop_padding == 4


def test_mixup_needs_a_partner():
  config = tiny.config('n_mnist', augment__mixup=0.5, batch_size=1)
  with pytest.raises(UserError, match='of at least 2, got 1'):
    sample_spec(config)


IMAGES = tiny.dataset((8, 8, 1))
FRAMES = tiny.dataset((3, 8, 8, 2))


@pytest.mark.parametrize(
  ('name', 'dataset', 'message'),
  [
    ('frame_arrays', FRAMES, 'time_steps is 2, but the dataset has 3 frames'),
    ('arrays', FRAMES, r"frames of .*default_config\(data='frame_arrays'"),
    ('frame_arrays', IMAGES, r"images of .*default_config\(data='arrays'"),
    ('arrays', None, r'train\(config, dataset\)'),
    ('digits', IMAGES, "'digits', which is loaded by its name"),
    ('arrays', IMAGES, 'batch'),
    (
      'arrays',
      (1, 2),
      r'must come from data\.from_arrays\(\.\.\.\), got tuple',
    ),
  ],
)
def test_arrays_that_do_not_fit(tmp_path, name, dataset, message):
  with pytest.raises(UserError, match=message) as error:
    train(tiny.config(name), dataset, tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('returned', 'message'),
  [
    (
      tiny.dataset((8, 8, 1), num_classes=3),
      r"'own' says .*\(\(8, 8, 1\), 4\)",
    ),
    (tiny.dataset((9, 8, 1)), r'returned \(\(9, 8, 1\), 4\)'),
    (None, 'returned NoneType; it must return such a Dataset'),
  ],
)
def test_an_entry_that_its_data_contradict(monkeypatch, returned, message):
  entry = DatasetEntry(lambda options: returned, 4, (8, 8, 1))
  monkeypatch.setitem(DATASETS, 'own', entry)
  with pytest.raises(UserError, match=message):
    load_dataset(tiny.config('own'))


def test_config_and_dataset_exchanged():
  with pytest.raises(UserError, match='must be a ConfigDict'):
    train(IMAGES, tiny.config('arrays'))
