"""MNIST and Fashion-MNIST from their four files, or prepared elsewhere."""

import gzip
import io
import pathlib
import struct

import numpy as np
import PIL.Image
import pytest

from mlf_jax import data
from mlf_jax.data import downloads
from mlf_jax.data.images import mnist
from mlf_jax.errors import UserError

IMAGES = 'train-images-idx3-ubyte.gz'
LABELS = 'train-labels-idx1-ubyte.gz'


def idx(values, kind=8):
  """Bytes of a file in the IDX format, from its published description."""
  values = np.asarray(values, np.uint8)
  header = struct.pack(
    f'>HBB{values.ndim}I', 0, kind, values.ndim, *values.shape
  )
  return header + values.tobytes()


def samples(count, seed):
  random = np.random.default_rng(seed)
  images = random.integers(0, 256, (count, 28, 28), np.uint8)
  return images, random.integers(0, 10, count).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
  """The four files of 7 training and 3 test samples."""
  for part, count in (('train', 7), ('t10k', 3)):
    images, labels = samples(count, count)
    for kind, values in (('images-idx3', images), ('labels-idx1', labels)):
      path = tmp_path / 'files' / f'{part}-{kind}-ubyte.gz'
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(gzip.compress(idx(values)))
  return tmp_path / 'files'


def load(folder, name='mnist'):
  empty = str(folder.parent / 'prepared')
  options = data.LoadOptions(data_dir=empty, manual_dir=str(folder))
  return data.load(name, options)


def require_samples(dataset):
  for split, count in ((dataset.train, 7), (dataset.test, 3)):
    images, labels = samples(count, count)
    np.testing.assert_array_equal(split.images, images[..., np.newaxis])
    np.testing.assert_array_equal(split.labels, labels)
    assert split.labels.dtype == np.int32


@pytest.mark.parametrize('name', mnist.PUBLISHED)
def test_the_four_files_are_read(folder, name):
  dataset = load(folder, name)
  require_samples(dataset)
  assert (dataset.name, dataset.split_name) == (name, 'official')
  assert len(dataset.class_names) == dataset.num_classes == 10


def test_files_may_be_uncompressed(folder):
  for path in folder.iterdir():
    path.with_suffix('').write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
  require_samples(load(folder))


def test_files_are_downloaded_if_no_folder_is_named(folder, monkeypatch):
  asked = {}

  def download(url, to, size, sha256):
    asked[url] = size
    assert len(sha256) == 64 and pathlib.Path(to).is_dir()
    return folder / url.rsplit('/', 1)[-1]

  monkeypatch.setattr(downloads, 'download', download)
  options = data.LoadOptions(data_dir=str(folder.parent / 'prepared'))
  require_samples(data.load('mnist', options))
  assert sum(asked.values()) == 11_594_722  # As Y. LeCun's page gives them.


def test_a_copy_that_tensorflow_datasets_prepared_is_read(tmp_path):
  import tensorflow_datasets as tfds

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = 'mnist'
    VERSION = tfds.core.Version('3.0.1')

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=(28, 28, 1)),
        'label': tfds.features.ClassLabel(num_classes=10),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {
        'train': self._generate_examples(7),
        'test': self._generate_examples(3),
      }

    def _generate_examples(self, count):
      for i, (image, label) in enumerate(
        zip(*samples(count, count), strict=True)
      ):
        png = io.BytesIO()
        PIL.Image.fromarray(image).save(png, 'PNG')
        yield i, {'image': png.getvalue(), 'label': label}

  Builder(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  dataset = data.load('mnist', data.LoadOptions(data_dir=str(tmp_path)))
  # The library shuffles; an image is known by its pixels.
  for split, count in ((dataset.train, 7), (dataset.test, 3)):
    images, labels = samples(count, count)
    expected = {
      i.tobytes(): label for i, label in zip(images, labels, strict=True)
    }
    found = zip(np.asarray(split.images), split.labels, strict=True)
    assert {i.tobytes(): label for i, label in found} == expected


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    (IMAGES, None, r'train-images-idx3-ubyte.gz is not in .*: put the four'),
    (IMAGES, gzip.compress(idx(np.ones((7, 28, 28))))[:40], 'is damaged'),
    (IMAGES, b'GIF89a', 'is not a file of bytes in the IDX format'),
    (IMAGES, idx(np.ones((7, 28, 28)), kind=13), 'is not a file of bytes'),
    (IMAGES, idx(np.ones((7, 28, 28)))[:-5], 'but holds 5483 bytes'),
    (IMAGES, idx(np.ones((7, 28, 27))), 'not images of 28 x 28'),
    (LABELS, idx(np.ones(6)), 'not one label for each of the 7 images'),
    (LABELS, idx(np.full(7, 10)), 'holds the label 10'),
  ],
  ids=range(8),
)
def test_damaged_files_are_named(folder, file, content, message):
  if content is None:
    (folder / file).unlink()
  else:
    (folder / file).write_bytes(content)
  with pytest.raises(UserError, match=message) as info:
    load(folder)
  assert '\n' not in str(info.value) and file.split('.')[0] in str(info.value)


def test_mirror_images_of_digits_are_refused_and_of_clothes_allowed():
  assert 'flip' in data.DATASETS['mnist'].refused
  assert not data.DATASETS['fashion_mnist'].refused
