"""Arrays in a `.npz` file."""

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.errors import UserError

IMAGES = np.arange(12 * 4 * 5, dtype=np.uint8).reshape(12, 4, 5)
LABELS = np.arange(12) % 3


def load(path, name='folder'):
  return data.load(name, data.LoadOptions(data_dir=str(path)))


def test_images_are_mapped_and_divided_as_the_file_says(tmp_path):
  path = tmp_path / 'mine.npz'
  parts = {'x_train': IMAGES, 'y_train': LABELS}
  np.savez(path, **parts, x_test=IMAGES[:2], y_test=LABELS[:2])
  # The file, or the folder in which it lies alone.
  for place in (path, tmp_path):
    dataset = load(place)
    assert (dataset.name, dataset.split_name) == ('mine', 'given')
    np.testing.assert_array_equal(dataset.train.images[..., 0], IMAGES)
    np.testing.assert_array_equal(dataset.test.labels, LABELS[:2])
  assert isinstance(dataset.train.images, np.memmap)
  np.savez(path, x_train=255 - IMAGES, y_train=LABELS)
  dataset = load(path)
  assert dataset.split_name == 'random-0-20%'
  both = np.concatenate([dataset.train.images, dataset.test.images])
  np.testing.assert_array_equal(
    np.sort(both, None), np.sort(255 - IMAGES, None)
  )


def test_frames_are_taken_by_the_other_entry(tmp_path):
  frames = np.ones((12, 3, 4, 5, 2), np.uint8)
  np.savez(tmp_path / 'a.npz', x_train=frames, y_train=LABELS)
  assert load(tmp_path, 'recording_folder').sample_shape == (3, 4, 5, 2)
  with pytest.raises(UserError, match='--config=folder:recordings'):
    load(tmp_path)


def test_a_class_without_samples_is_a_warning(tmp_path):
  np.savez(tmp_path / 'a.npz', x_train=IMAGES, y_train=LABELS * 2)
  with pytest.warns(UserWarning, match=r'class 1 of 5 has no training samples'):
    load(tmp_path)


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'x_train': IMAGES}, r'has no array y_train, but x_train; it needs'),
    (
      {'x_train': IMAGES, 'y_train': LABELS.astype(str)},
      r'a.npz: y_train must be whole numbers',
    ),
    (
      {'x_train': IMAGES, 'y_train': LABELS.astype(object)},
      r'a.npz cannot be read \(Object arrays',
    ),
    (
      {'x_train': IMAGES, 'y_train': LABELS + 1},
      r'a.npz: y_train hold no 0, .* label from all of them$',
    ),
    ({'x_train': IMAGES[0], 'y_train': LABELS}, r'has shape \(4, 5\)'),
  ],
  ids=range(5),
)
def test_what_is_wrong_is_named(tmp_path, arrays, message):
  np.savez(tmp_path / 'a.npz', **arrays)
  with pytest.raises(UserError, match=message) as info:
    load(tmp_path)
  assert '\n' not in str(info.value)


def test_a_damaged_file_and_several_files_are_named(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, x_train=IMAGES, y_train=LABELS)
  path.write_bytes(path.read_bytes()[:-50])
  with pytest.raises(UserError, match=r'a.npz cannot be read'):
    load(path)
  np.savez(tmp_path / 'b.npz', x_train=IMAGES, y_train=LABELS)
  with pytest.raises(UserError, match=r'holds 2 .npz files: name one of them'):
    load(tmp_path)
