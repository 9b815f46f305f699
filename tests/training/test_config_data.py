"""Data and configuration fit, or one line says why not."""

import pytest

from mlf_jax import UserError, data
from mlf_jax.data import FrameSpec
from mlf_jax.training import train
from mlf_jax.training.config_data import load_options, sample_spec
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
        'model__time_steps': 5,
      },
      'random-7',
      FrameSpec(5, 'count', downsample=2.0),
    ),
    ('n_mnist', {'data__window_ms': 0.001}, '', FrameSpec(2, 'window', 1)),
    ('digits', {}, '', None),
  ],
)
def test_data_is_asked_for_as_configured(name, changes, split_name, frames):
  config = tiny.config(name, data__dir='D', data__manual_dir='M', **changes)
  assert load_options(config) == data.LoadOptions(frames, split_name, 'D', 'M')


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('digits', {'augment__crop_padding': 9}, 'must be at most 8, the side'),
    ('n_mnist', {'augment__cutout': 35}, 'cutout must be at most 34, the side'),
    ('n_mnist', {'augment__time_shift': 2}, 'below config.model.time_steps 2'),
    (
      'n_mnist',
      {'augment__mixup': 0.5, 'batch_size': 1},
      'mixup needs a config.batch_size of at least 2, got 1',
    ),
    (
      'n_mnist',
      {'data__window_ms': 0.0},
      "config.data: binning 'window' needs",
    ),
    (
      'n_mnist',
      {'data__binning': 'span'},
      'config.data: .* the others have no',
    ),
    ('cifar10_dvs', {'data__split': ''}, "must not be '' for cifar10_dvs"),
    ('cifar10_dvs', {'data__split': 'taill'}, "config.data: .*'taill' is unkn"),
    (
      'cifar10_dvs',
      {'data__split': 'random-7\n'},
      'config.data: .* is unknown',
    ),
    ('n_mnist', {'data__split': 'tail'}, "be '' for n_mnist, .*, got 'tail'"),
    (
      'dvs_gesture',
      {'augment__flip': True},
      'flip must be False for dvs_gesture: .*mirrored',
    ),
  ],
)
def test_mistakes(name, changes, message):
  with pytest.raises(UserError, match=message) as error:
    sample_spec(tiny.config(name, **changes))
  assert '\n' not in str(error.value)


IMAGES = tiny.dataset((8, 8, 1))
FRAMES = tiny.dataset((3, 8, 8, 2))


@pytest.mark.parametrize(
  ('name', 'dataset', 'message'),
  [
    ('frame_arrays', FRAMES, 'time_steps is 2, but the dataset has 3 frames'),
    (
      'arrays',
      FRAMES,
      r"frames of .*start from default_config\(data='frame_ar",
    ),
    ('frame_arrays', IMAGES, r"images of .*default_config\(data='arrays'"),
    ('arrays', None, r'train\(config, dataset\)'),
    ('digits', IMAGES, "'digits', which is loaded by its name"),
  ],
)
def test_arrays_that_do_not_fit(tmp_path, name, dataset, message):
  with pytest.raises(UserError, match=message) as error:
    train(tiny.config(name), dataset, tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_batch_larger_than_the_arrays(tmp_path):
  with pytest.raises(UserError, match='batch'):
    train(tiny.config('arrays'), IMAGES, tmp_path / 'run')
