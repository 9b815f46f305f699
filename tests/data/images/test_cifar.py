"""CIFAR from its archive, through preparation, to arrays."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import pathlib
import pickle
import re
import resource
import shutil
import sys
import tarfile
import threading

import numpy as np
import PIL.Image
import pytest

from mlf_jax import data
from mlf_jax.data import archives, io
from mlf_jax.data.images import cifar
from mlf_jax.errors import UserError
from tests.data import miniature
from tests.data.waiting import waiting_for_this

# The checksum of a miniature archive cannot be the published one.
pytestmark = pytest.mark.filterwarnings('ignore:.*has SHA-256')


@pytest.fixture
def places(tmp_path):
  """Where a miniature CIFAR-10 archive and its prepared data lie."""
  manual = tmp_path / 'manual'
  manual.mkdir()
  miniature.write_cifar_archive(manual / 'cifar-10-binary.tar.gz', 4, 0)
  return {'data_dir': str(tmp_path / 'data'), 'manual_dir': str(manual)}


def archive_path(places):
  return pathlib.Path(places['manual_dir'], 'cifar-10-binary.tar.gz')


def prepared_folder(places):
  return pathlib.Path(places['data_dir'], 'cifar10', '3.0.2')


def load(places, name='cifar10'):
  return data.load(name, data.LoadOptions(**places))


def one_line_error(places):
  with pytest.raises(UserError) as info:
    load(places)
  assert '\n' not in str(info.value)
  return str(info.value)


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_loaded_samples_are_those_of_the_archive(name, tmp_path, capfd):
  """TensorFlow is not needed, but its library reads the prepared folder."""
  import tensorflow_datasets as tfds

  archive = cifar.ARCHIVES[name]
  path = tmp_path / archive.filename
  written = miniature.write_cifar_archive(path, 5, 1, name)
  places = {'data_dir': str(tmp_path / 'data'), 'manual_dir': str(tmp_path)}
  dataset = load(places, name)
  assert 'tensorflow' not in sys.modules
  assert capfd.readouterr().out == ''
  for split, images, labels in (
    (dataset.train, *written[:2]),
    (dataset.test, *written[2:]),
  ):
    np.testing.assert_array_equal(split.images, images)
    np.testing.assert_array_equal(split.labels, labels)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
  assert dataset.num_classes == int(name.removeprefix('cifar'))
  assert dataset.split_name == 'official'
  builder = tfds.builder_from_directory(tmp_path / 'data' / name / '3.0.2')
  assert builder.info.full_name == f'{name}/3.0.2'
  assert builder.info.supervised_keys == ('image', 'label')
  first = f'{list(archive.label_files)[-1]} 0'
  assert builder.info.features['label'].names[0] == first
  stored = sorted(builder.as_data_source('test'), key=lambda e: e['id'])
  content = miniature.read_tar(path)[
    f'{archive.folder}/{archive.split_files["test"][0]}'
  ]
  records = np.frombuffer(content, np.uint8).reshape(5, -1)
  for i, example in enumerate(stored):
    assert set(example) == {'id', 'image', *archive.label_files}
    assert example['id'] == f'test_{i:05d}'.encode()
    np.testing.assert_array_equal(example['image'], written[2][i])
    labels = [example[label] for label in archive.label_files]
    assert labels == records[i, : len(labels)].tolist()


def test_newest_prepared_version_is_read_without_the_archive(
  places, monkeypatch
):
  first = load(places)
  archive_path(places).unlink()
  root = prepared_folder(places).parent
  (root / '3.0.2').rename(root / '3.0.10')
  for name in ('3.0.9', 'incomplete.ABCDEF_3.0.11'):
    (root / name).mkdir()
    (root / name / 'dataset_info.json').write_text('{}')
  (root / '4.0.0').mkdir()
  monkeypatch.setenv('TFDS_DATA_DIR', places['data_dir'])
  again = load({})
  assert again.train.split_hash == first.train.split_hash
  assert again.test.split_hash == first.test.split_hash
  # The statistics of the method's paper.
  assert again.mean == (0.4914, 0.4822, 0.4465)
  assert again.std == (0.2023, 0.1994, 0.2010)


def convert_to_tfrecord(folder):
  """Rewrites a prepared folder as the library writes it by default."""
  import tensorflow_datasets as tfds

  for split in ('train', 'test'):
    records = tfds.builder_from_directory(folder).as_data_source(
      split,
      deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
    )
    name = f'cifar10-{split}.tfrecord-00000-of-00001'
    with (folder / name).open('wb') as file:
      for record in records:
        file.write(len(record).to_bytes(8, 'little') + b'crc.')
        file.write(record + b'crc.')
  for path in folder.glob('*.array_record*'):
    path.unlink()
  path = folder / 'dataset_info.json'
  info = json.loads(path.read_text()) | {'fileFormat': 'tfrecord'}
  path.write_text(json.dumps(info))


def test_tfrecord_folder_is_read_without_tensorflow(places):
  before = load(places)
  folder = prepared_folder(places)
  convert_to_tfrecord(folder)
  again = load(places)
  assert again.train.split_hash == before.train.split_hash
  assert again.test.split_hash == before.test.split_hash
  shard = folder / 'cifar10-train.tfrecord-00000-of-00001'
  shard.write_bytes(shard.read_bytes()[:-9])
  assert 'ends in the middle of a record' in one_line_error(places)
  shard.write_bytes(b'')
  assert '0 records where 20 should be' in one_line_error(places)


@pytest.mark.parametrize('content', [None, bytes(1 << 16)])
def test_damaged_shard_is_named(places, content):
  load(places)
  folder = prepared_folder(places)
  shard = folder / 'cifar10-train.array_record-00000-of-00001'
  shard.unlink()
  if content is not None:
    shard.write_bytes(content)
  message = one_line_error(places)
  assert str(folder) in message and 'delete the folder' in message


def save_then(monkeypatch, action, number):
  """Calls `action` before the image of that number is stored."""
  save, calls = PIL.Image.Image.save, []

  def save_and_act(*args, **kwargs):
    calls.append(args)
    if len(calls) == number:
      action()
    save(*args, **kwargs)

  monkeypatch.setattr(PIL.Image.Image, 'save', save_and_act)


def test_interrupted_preparation_leaves_nothing(places, monkeypatch):
  def interrupt():
    raise KeyboardInterrupt

  save_then(monkeypatch, interrupt, 22)  # Within the second split.
  with pytest.raises(KeyboardInterrupt):
    load(places)
  assert not list(prepared_folder(places).parent.iterdir())
  assert len(load(places).train) == 20


def test_what_another_process_prepares_is_waited_for(places):
  first = load(places)
  folder = prepared_folder(places)
  elsewhere = folder.parent.parent / 'elsewhere'
  folder.rename(elsewhere)
  archive_path(places).unlink()  # The second needs no archive.
  preparing = io.exclusive(folder.parent / archives.PREPARING, '', '', '')
  preparing.__enter__()
  with waiting_for_this(lambda: load(places)) as results:
    elsewhere.rename(folder)
    preparing.__exit__(None, None, None)
  assert results[0].train.split_hash == first.train.split_hash
  assert [path.name for path in folder.parent.iterdir()] == ['3.0.2']


def test_images_are_decoded_once_and_anew_if_prepared_anew(places, monkeypatch):
  first = load(places)
  folder = prepared_folder(places)
  with monkeypatch.context() as patch:
    patch.setattr(PIL.Image, 'open', None)
    again = load(places)
  assert isinstance(again.train.images, np.memmap)
  np.testing.assert_array_equal(again.train.images, first.train.images)
  # Another preparation under the same name, with the old decoded images.
  (folder / 'decoded').rename(folder.parent / 'decoded')
  shutil.rmtree(folder)
  _, _, images, _ = miniature.write_cifar_archive(archive_path(places), 4, 1)
  load(places)
  shutil.rmtree(folder / 'decoded')
  (folder.parent / 'decoded').rename(folder / 'decoded')
  np.testing.assert_array_equal(load(places).test.images, images)


def test_full_disk_is_a_one_line_error(places):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
  try:
    message = one_line_error(places)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  folder = prepared_folder(places).parent
  assert f'{folder / "3.0.2"} cannot be written' in message
  assert not list(folder.iterdir())


def test_other_checksum_of_a_manual_archive_is_a_warning(places):
  found = hashlib.sha256(archive_path(places).read_bytes()).hexdigest()
  published = cifar.ARCHIVES['cifar10'].sha256
  with pytest.warns(UserWarning, match=f'{found}.*{published}'):
    assert len(load(places).train) == 20


def test_only_known_members_are_read_and_nothing_is_extracted(places, tmp_path):
  path = archive_path(places)
  before = load({'data_dir': str(tmp_path / 'first'), 'manual_dir': str(path)})
  link = tarfile.TarInfo('cifar-10-batches-bin/test_batch.bin')
  link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
  hostile = ('../escaped', '/escaped', 'cifar-10-batches-bin/escaped')
  members = dict.fromkeys(hostile, b'evil') | miniature.read_tar(path)
  miniature.write_tar(path, members, link)
  assert load(places).test.split_hash == before.test.split_hash
  assert not list(tmp_path.rglob('escaped'))


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_archive_for_python_holds_the_same(name, tmp_path):
  path = tmp_path / 'bytes.tar.gz'
  written = miniature.write_cifar_archive(path, 3, 2, name)
  for kind, dump in (
    ('published', miniature.python2_pickle),
    ('pickled again', functools.partial(pickle.dumps, protocol=2)),
  ):
    folder = tmp_path / kind
    folder.mkdir()
    twin = folder / cifar.ARCHIVES[name].pickled.filename
    miniature.write_tar(twin, miniature.pickled_cifar(path, name, dump))
    places = {'data_dir': str(folder), 'manual_dir': str(folder)}
    dataset = load(places, name)
    for split, images, labels in (
      (dataset.train, *written[:2]),
      (dataset.test, *written[2:]),
    ):
      np.testing.assert_array_equal(split.images, images)
      np.testing.assert_array_equal(split.labels, labels)
  info = json.loads(next(folder.rglob('dataset_info.json')).read_text())
  assert info['name'] == name


class Exploit:
  def __reduce__(self):
    return os.mkdir, ('exploited',)


PIXELS = np.zeros((3, 3072), np.uint8)


@pytest.mark.parametrize(
  ('content', 'complaint'),
  [
    (Exploit(), 'asks for (posix|nt).mkdir, which no file of CIFAR does'),
    ({'data': Exploit()}, 'asks for (posix|nt).mkdir'),
    ({'data': np.float64(1)}, r'asks for numpy.*multiarray.scalar'),
    ({'data': PIXELS.astype('u2'), 'labels': []}, 'is not uint8 in C order'),
    ({'data': PIXELS.T, 'labels': []}, 'is not uint8 in C order'),
    ([1, 2], "cannot be read .*'list'"),
    ({'data': PIXELS}, "has no list 'labels'"),
    ({'data': [0], 'labels': [0]}, "has no ndarray 'data'"),
    ({'data': PIXELS[:, :9].copy(), 'labels': [0] * 3}, r'shape \(3, 9\), not'),
    ({'data': PIXELS, 'labels': [0, 1]}, 'one label for each of its 3 images'),
    ({'data': PIXELS, 'labels': [0, 1, 'x']}, 'one label for each of its 3'),
    ({'data': PIXELS, 'labels': [0, 1, 10]}, 'holds the label 10'),
  ],
)
def test_bad_pickle_runs_nothing_and_is_named(
  places, content, complaint, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  path = archive_path(places)
  members = miniature.pickled_cifar(path, 'cifar10')
  name = 'cifar-10-batches-py/data_batch_2'
  members[name] = pickle.dumps(content, 2)
  miniature.write_tar(path, members)
  message = one_line_error(places)
  assert f'{path}: data_batch_2' in message and re.search(complaint, message)
  assert not (tmp_path / 'exploited').exists()


@pytest.mark.parametrize('length', [0, 7, 3000, -9])
def test_pickle_that_is_cut_short_is_named(places, length):
  path = archive_path(places)
  members = miniature.pickled_cifar(path, 'cifar10')
  name = 'cifar-10-batches-py/test_batch'
  members[name] = members[name][:length]
  miniature.write_tar(path, members)
  assert 'test_batch cannot be read' in one_line_error(places)


def truncate(length):
  return lambda path: path.write_bytes(path.read_bytes()[:length])


def replace(name, content):
  """Writes the archive anew with other content of a member, or without it."""

  def rewrite(path):
    members = miniature.read_tar(path)
    members[f'cifar-10-batches-bin/{name}'] = content
    kept = {name: c for name, c in members.items() if c is not None}
    miniature.write_tar(path, kept)

  return rewrite


@pytest.mark.parametrize(
  ('break_archive', 'complaint'),
  [
    (lambda p: p.write_bytes(b'<html>not found</html>' * 99), 'cannot be read'),
    *((truncate(length), 'cannot be read') for length in (0, 40_000, -9)),
    (replace('data_batch_3.bin', None), 'lacks cifar-10-batches-bin/data_batc'),
    (replace('test_batch.bin', bytes(6145)), 'not a multiple of the 3073'),
    (replace('test_batch.bin', b''), 'test_batch.bin has 0 bytes'),
    (replace('test_batch.bin', b'\x0a' + bytes(3072)), 'holds the label 10'),
    (replace('batches.meta.txt', b'cat\n'), 'names of 1 classes are there'),
  ],
)
def test_bad_archive_is_named(places, break_archive, complaint):
  path = archive_path(places)
  break_archive(path)
  message = one_line_error(places)
  assert str(path) in message
  assert complaint in message


def test_folders_that_cannot_be_used(places, tmp_path):
  load(places)
  folder = prepared_folder(places)
  (folder / 'dataset_info.json').unlink()
  assert f'{folder} cannot be written' in one_line_error(places)
  archive_path(places).unlink()
  message = one_line_error(places)
  assert f'cifar-10-binary.tar.gz is not in {places["manual_dir"]}' in message
  assert 'nor is cifar-10-python.tar.gz' in message and '170 MB' in message
  file = tmp_path / 'file'
  file.touch()
  message = one_line_error({**places, 'data_dir': str(file)})
  assert str(file) in message and '--config.data.dir' in message


@contextlib.contextmanager
def served(folder):
  """Yields the address of an HTTP server of a folder on this machine."""

  handler = functools.partial(
    http.server.SimpleHTTPRequestHandler, directory=folder
  )
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def publish(monkeypatch, url, content):
  """Makes this content the published archive, at this address."""
  archive = dataclasses.replace(
    cifar.ARCHIVES['cifar10'],
    url=f'{url}/cifar-10-binary.tar.gz',
    sha256=hashlib.sha256(content).hexdigest(),
  )
  monkeypatch.setitem(cifar.ARCHIVES, 'cifar10', archive)


def downloads(places):
  folder = pathlib.Path(places['data_dir'], 'downloads')
  return [path.name for path in folder.glob('*') if path.is_file()]


def test_archive_is_downloaded_once(places, monkeypatch):
  manual = places.pop('manual_dir')
  content = pathlib.Path(manual, 'cifar-10-binary.tar.gz').read_bytes()
  with served(manual) as url:
    publish(monkeypatch, url, content)
    dataset = load(places)
  assert len(dataset.train) == 20
  assert downloads(places) == ['cifar-10-binary.tar.gz']
  # The server is gone: the download is used again.
  shutil.rmtree(prepared_folder(places).parent)
  assert load(places).train.split_hash == dataset.train.split_hash


@pytest.mark.parametrize('reason', ['404', 'refused', 'SHA-256'])
def test_download_that_fails_says_what_to_do(places, monkeypatch, reason):
  with served(places.pop('manual_dir')) as url:
    publish(monkeypatch, url + '/elsewhere' * (reason == '404'), b'other')
    if reason != 'refused':
      message = one_line_error(places)
  if reason == 'refused':
    message = one_line_error(places)
  assert cifar.ARCHIVES['cifar10'].url in message and reason in message
  advice = 'try again' if reason == 'SHA-256' else '.manual_dir=DIR'
  assert advice in message
  assert not downloads(places)


def test_published_archives_are_those_of_the_library():
  import tensorflow_datasets as tfds

  sums = pathlib.Path(tfds.__file__).parent / 'url_checksums'
  for name, archive in cifar.ARCHIVES.items():
    lines = (sums / f'{name}.txt').read_text().splitlines()
    listed = {line.split('\t')[0]: line.split('\t')[1:3] for line in lines}
    assert listed[archive.url] == [str(archive.size), archive.sha256]
