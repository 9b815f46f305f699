"""Data sets by name."""

import subprocess
import sys

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.errors import UserError

SPEC = data.FrameSpec(3, 'span', downsample=2.0)


def test_entries_know_the_shape_of_a_sample_without_the_data():
  shapes = {
    'digits': ((8, 8, 1), 10),
    'cifar10': ((32, 32, 3), 10),
    'cifar100': ((32, 32, 3), 100),
    'moving_digits': ((10, 8, 8, 2), 10),
    'dvs_gesture': ((40, 32, 32, 2), 11),
    'cifar10_dvs': ((10, 42, 42, 2), 10),
    'n_mnist': ((10, 34, 34, 2), 10),
    'arrays': (None, None),
    'frame_arrays': (None, None),
  }
  assert shapes == {
    name: (data.DATASETS[name].shape(), data.DATASETS[name].num_classes)
    for name in shapes
  }
  assert data.DATASETS['n_mnist'].shape(SPEC) == (3, 17, 17, 2)
  dataset = data.load('digits')
  assert dataset.sample_shape == data.DATASETS['digits'].shape()


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('cifar-10', {}, r"'cifar-10'.*mean 'cifar10'.*digits"),
    ('digits', {'frames': SPEC}, 'digits holds no recordings'),
    ('n_mnist', {'split_name': 'tail'}, "has one split only.*'tail'"),
    ('cifar10_dvs', {'split_name': 'tial'}, "'tial' is unknown; known: tail"),
    ('arrays', {}, r'data\.from_arrays.*train\(config, dataset\)'),
    ('frame_arrays', {}, r'data\.from_arrays.*train\(config, dataset\)'),
  ],
)
def test_what_cannot_be_loaded_is_one_line(name, options, message):
  with pytest.raises(UserError, match=message) as error:
    data.load(name, data.LoadOptions(**options))
  assert '\n' not in str(error.value)


def test_a_data_set_of_your_own_is_one_entry(monkeypatch):
  images, labels = np.zeros((4, 5, 5, 1), np.uint8), [0, 1, 2, 0]
  entry = data.DatasetEntry(
    load=lambda options: data.from_arrays(images, labels, images, labels),
    num_classes=3,
    sample_shape=(5, 5, 1),
  )
  monkeypatch.setitem(data.DATASETS, 'my_images', entry)
  dataset = data.load('my_images')
  assert dataset.sample_shape == data.DATASETS['my_images'].shape()
  assert dataset.num_classes == entry.num_classes


def test_importing_and_digits_leave_tensorflow_alone():
  code = (
    'import sys, mlf_jax.data as data; data.load("digits");'
    'print({"tensorflow", "tensorflow_datasets"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'set()'
