"""A folder of images by class: what is read, refused, and kept safe."""

import pathlib
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest

from mlf_jax import data
from mlf_jax.data.folders import images as folder_images
from mlf_jax.errors import UserError
from tests.data.folders import trees

DIVIDED = {'train/cat': 4, 'train/dog': 3, 'test/cat': 2, 'test/dog': 2}


def load(root, **options):
  options = data.LoadOptions(data_dir=str(root), **options)
  return data.load('folder', options)


def error_of(root, **options):
  with pytest.raises(UserError) as info:
    load(root, **options)
  assert '\n' not in str(info.value)
  return str(info.value)


def test_classes_are_the_sorted_names_of_folders(tmp_path):
  counts = {'train/b': 2, 'train/a': 3, 'test/b': 1, 'test/a': 2}
  trees.write_images(tmp_path, counts)
  dataset = load(tmp_path)
  assert dataset.class_names == ('a', 'b') and dataset.num_classes == 2
  assert (dataset.split_name, dataset.name) == ('given', tmp_path.name)
  for part in ('train', 'test'):
    split = getattr(dataset, part)
    labels = [list(counts).index(f'{part}/{name}') for name in 'ab']
    expected = [
      trees.picture(label, number)
      for label, name in zip(labels, 'ab', strict=True)
      for number in range(counts[f'{part}/{name}'])
    ]
    np.testing.assert_array_equal(split.images, expected)
    sizes = [counts[f'{part}/{name}'] for name in 'ab']
    np.testing.assert_array_equal(split.labels, np.repeat([0, 1], sizes))
  assert dataset.train.ids[0] == 'a/000.png'
  scaled = np.asarray(dataset.train.images) / 255
  np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)))


def test_files_are_decoded_once_and_again_when_they_change(
  tmp_path, monkeypatch
):
  trees.write_images(tmp_path, DIVIDED)
  first = load(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(folder_images, 'read_image', None)
    again = load(tmp_path)
  assert isinstance(again.train.images, np.memmap)
  np.testing.assert_array_equal(again.train.images, first.train.images)
  assert (again.mean, again.std) == (first.mean, first.std)
  path = tmp_path / 'train' / 'cat' / '000.png'
  PIL.Image.fromarray(np.full((6, 5, 3), 99, np.uint8)).save(path)
  assert load(tmp_path).train.images[0, 1, 1, 0] == 99


def test_without_a_test_folder_each_class_is_divided(tmp_path):
  trees.write_images(tmp_path, {'train/cat': 10, 'train/dog': 5})
  dataset = load(tmp_path)
  assert dataset.split_name == 'random-0-20%'
  np.testing.assert_array_equal(np.bincount(dataset.test.labels), [2, 1])
  np.testing.assert_array_equal(np.bincount(dataset.train.labels), [8, 4])
  names = {*dataset.train.ids, *dataset.test.ids}
  assert len(names) == 15
  tail = load(tmp_path, split_name='tail')
  assert list(tail.test.ids) == ['cat/008.png', 'cat/009.png', 'dog/004.png']
  # Mean and deviation are those of the training images of each division.
  for each in (dataset, tail):
    scaled = np.asarray(each.train.images) / 255
    np.testing.assert_allclose(each.mean, scaled.mean((0, 1, 2)))


def test_grey_images_have_one_channel_and_colour_wins(tmp_path):
  trees.write_images(tmp_path, DIVIDED, channels=1)
  assert load(tmp_path).sample_shape == (6, 5, 1)
  path = tmp_path / 'test' / 'cat' / 'colour.png'
  PIL.Image.fromarray(trees.picture(0, 7)).save(path)
  dataset = load(tmp_path)
  assert dataset.sample_shape == (6, 5, 3)
  np.testing.assert_array_equal(dataset.train.images[0], trees.picture(0, 0))


def test_images_of_several_sizes_are_resized_if_asked(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  other = tmp_path / 'train' / 'dog' / 'zoom.png'
  PIL.Image.fromarray(np.full((12, 10, 3), 77, np.uint8)).save(other)
  message = error_of(tmp_path)
  assert 'zoom.png is 12 x 10 pixels' in message
  assert '--config.data.size' in message
  dataset = load(tmp_path, size=(4, 8))
  assert dataset.sample_shape == (4, 8, 3)
  assert (dataset.train.images[-1] == 77).all()
  for size in ((4, 0), (4,)):
    assert 'both or none 0' in error_of(tmp_path, size=size)


def test_a_turned_camera_is_turned_back(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  path = tmp_path / 'train' / 'cat' / '000.png'
  upright = np.arange(90, dtype=np.uint8).reshape(6, 5, 3)
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # To be turned clockwise by a quarter.
  turned = PIL.Image.fromarray(np.rot90(upright).copy())
  turned.save(path, exif=exif)
  np.testing.assert_array_equal(load(tmp_path).train.images[0], upright)


def test_other_files_are_left_out_with_a_warning(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  (tmp_path / 'train' / 'cat' / 'notes.txt').write_text('a cat')
  (tmp_path / 'train' / 'cat' / '.DS_Store').write_text('hidden')
  with pytest.warns(UserWarning, match=r'^1 files in .* such as .*notes.txt'):
    assert len(load(tmp_path).train) == 7


def test_files_of_no_class_are_left_out_with_a_warning(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  shutil.copy(tmp_path / 'train/cat/000.png', tmp_path / 'train/stray.png')
  (tmp_path / 'train' / '.DS_Store').write_text('hidden')
  with pytest.warns(UserWarning, match=r'^1 files in .* no folder .*stray.png'):
    assert len(load(tmp_path).train) == 7


def test_a_class_without_test_samples_is_a_warning(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  shutil.rmtree(tmp_path / 'test' / 'dog')
  with pytest.warns(UserWarning, match="no images of 1 of 2 classes, .*'dog'"):
    assert load(tmp_path).num_classes == 2


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (
      lambda d: d.joinpath('train').rename(d / 'all'),
      'has no folders of class',
    ),
    (lambda d: (d / 'train/eel').mkdir(), 'train/eel holds no images'),
    (lambda d: (d / 'test/eel').mkdir(), "the class 'eel', but"),
    (
      lambda d: (d / 'train/dog/001.png').write_bytes(b'no image'),
      'train/dog/001.png cannot be read as an image',
    ),
    (
      lambda d: PIL.Image.new('I;16', (5, 6)).save(d / 'train/cat/000.png'),
      'train/cat/000.png has more than 8 bits per colour',
    ),
  ],
  ids=range(5),
)
def test_what_is_wrong_is_named(tmp_path, spoil, message):
  trees.write_images(tmp_path, DIVIDED)
  spoil(tmp_path)
  assert message in error_of(tmp_path)
  assert not list(tmp_path.glob('decoded/train-*'))


def test_16_bits_per_colour_are_refused(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  path = tmp_path / 'train' / 'cat' / '000.png'

  def chunk(kind, content):
    whole = kind + content
    return struct.pack(
      f'>I{len(whole)}sI', len(content), whole, zlib.crc32(whole)
    )

  header = struct.pack('>IIBBBBB', 5, 6, 16, 2, 0, 0, 0)
  rows = zlib.compress(bytes(6 * (1 + 5 * 6)))
  path.write_bytes(
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', rows)
    + chunk(b'IEND', b'')
  )
  assert 'more than 8 bits per colour' in error_of(tmp_path)


def test_a_damaged_file_in_the_middle_leaves_nothing_half_written(tmp_path):
  trees.write_images(tmp_path, DIVIDED)
  path = tmp_path / 'train' / 'dog' / '001.png'
  content = path.read_bytes()
  path.write_bytes(content[:-30])  # The header is whole.
  assert f'{path} cannot be read as an image' in error_of(tmp_path)
  assert not list(tmp_path.glob('decoded/train-*'))
  path.write_bytes(content)
  assert len(load(tmp_path).train) == 7


def test_a_folder_must_be_named_and_exist(tmp_path):
  assert 'config.data.dir must name the folder' in error_of('')
  assert 'is no folder' in error_of(tmp_path / 'nowhere')


def test_memory_stays_far_below_the_size_of_the_images(tmp_path):
  """48 MB of images."""
  size = (400, 400)
  trees.write_images(tmp_path, {'train/a': 90, 'test/a': 10}, size=size)
  tracemalloc.start()
  with pytest.warns(UserWarning, match='are 400 x 400 pixels'):
    dataset = load(tmp_path)
  for step in range(data.steps_per_epoch(dataset.train, 8)):
    data.train_batch(dataset.train, 8, 0, step)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  total = sum(s.images.nbytes for s in dataset.splits.values())
  assert total == 48_000_000
  assert peak < total / 2
  assert pathlib.Path(dataset.train.images.filename).stat().st_size > 40_000_000
