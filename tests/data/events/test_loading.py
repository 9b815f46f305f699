"""Event-camera data sets from the published archives to frames."""

import dataclasses

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.data import FrameSpec, tfds_format
from mlf_jax.data.events import EVENT_SETS, loading
from mlf_jax.errors import UserError
from tests.data import event_trees, recordings
from tests.data.event_trees import CIFAR10_CLASSES
from tests.data.preparing import (
  BY_LIST,
  BY_SUBJECT,
  GESTURE_SAMPLES,
  GESTURES,
  SMALL,
  USERS,
  load,
  prepare,
  write_cifar,
  write_gestures,
)

# The checksum of a miniature archive cannot be the published one.
pytestmark = pytest.mark.filterwarnings('ignore:.*has MD5')


@pytest.mark.parametrize(
  ('archive', 'test_users', 'frames'),
  [(True, BY_LIST, SMALL), (False, BY_SUBJECT, None)],
)
def test_gestures(tmp_path, monkeypatch, archive, test_users, frames):
  files = dict(GESTURES)
  if test_users == BY_LIST:
    files |= event_trees.trial_lists(files, BY_LIST)
  write_gestures(tmp_path, files, archive)
  dataset = load('dvs_gesture', tmp_path, frames)
  assert dataset.split_name == 'official' and dataset.num_classes == 11
  # The paper's, by default.
  shape = (5, 70_000, 16, 128) if frames else (40, 30_000, 4, 128)
  for split in ('train', 'test'):
    samples = getattr(dataset, split)
    users = [u for u in USERS if (u in test_users) == (split == 'test')]
    expected = {
      name: sample
      for name, sample in GESTURE_SAMPLES.items()
      if int(name[4:6]) in users
    }
    assert samples.ids.tolist() == list(expected)
    assert np.bincount(samples.labels).tolist() == [len(users)] * 11
    for images, label, (true_label, events) in zip(
      samples.images, samples.labels, expected.values(), strict=True
    ):
      assert label == true_label
      np.testing.assert_array_equal(
        images, event_trees.frames_by_loop(events, *shape)
      )
  # Nothing but the data set is left, and it is enough.
  assert not list((tmp_path / 'prepared').rglob('preparing'))
  (tmp_path / 'manual').rename(tmp_path / 'elsewhere')
  with monkeypatch.context() as patch:
    patch.setattr(tfds_format, 'examples', None)  # It is decoded already.
    again = load('dvs_gesture', tmp_path, frames)
  assert again.test.split_hash == dataset.test.split_hash
  assert isinstance(again.test.images, np.memmap)
  np.testing.assert_array_equal(again.test.images, dataset.test.images)
  lines = prepare('dvs_gesture', tmp_path, frames)
  assert lines[1] == '5 recordings, 6,600 events in samples'
  rule = 'lists of trials' if archive else 'subject (1 to 23 train)'
  assert lines[2].endswith(f'told apart by {rule}')
  assert lines[3].split() == ['train', 'test']
  assert lines[4].split() == ['hand_clapping', '3', '2']
  assert lines[15].split() == ['samples', '33', '22']
  assert lines[18] == '0 skipped'


@pytest.mark.parametrize('zipped', [True, False])
def test_cifar10_dvs_splits(tmp_path, zipped):
  events = write_cifar(tmp_path, 12, zipped)
  spec = FrameSpec(10, 'window', 10_000, 3.04)
  hashes = set()
  for split_name, tested in (('head', 0), ('', 11)):
    dataset = load('cifar10_dvs', tmp_path, spec, split_name)
    train, test = dataset.train, dataset.test
    assert dataset.split_name == (split_name or 'tail')
    # Numerically: 2 comes before 10.
    names = [
      (i == tested, f'cifar10_{name}_{i}')
      for name in CIFAR10_CLASSES
      for i in range(12)
    ]
    assert test.ids.tolist() == [name for is_test, name in names if is_test]
    assert train.ids.tolist() == [n for is_test, n in names if not is_test]
    hashes |= {test.split_hash, train.split_hash}
  assert len(hashes) == 4
  assert train.images.shape == (110, 10, 42, 42, 2)
  for images, label, name in zip(
    train.images[::7], train.labels[::7], train.ids[::7], strict=True
  ):
    kind = name.split('_')[1]
    assert CIFAR10_CLASSES[label] == kind
    listed = events[f'{kind}/{name}.aedat']
    np.testing.assert_array_equal(
      images, event_trees.frames_by_loop(listed, 10, 10_000, 3.04, 128)
    )
  # The hash of the members does not depend on how frames are made.
  if zipped:
    other = load('cifar10_dvs', tmp_path, FrameSpec(3, 'count', 0, 32))
    assert other.test.split_hash == test.split_hash
    assert other.sample_shape != dataset.sample_shape


def test_n_mnist(tmp_path):
  events = event_trees.n_mnist(2)
  files = {name: recordings.n_mnist(e) for name, e in events.items()}
  event_trees.write_zips(tmp_path / 'manual', files)
  dataset = load('n_mnist', tmp_path, None)
  for split in ('train', 'test'):
    samples = getattr(dataset, split)
    names = [n for n in events if n.lower().startswith(split)]
    assert samples.ids.tolist() == [n.removesuffix('.bin') for n in names]
    assert samples.labels.tolist() == [int(n.split('/')[1]) for n in names]
    for images, name in zip(samples.images, names, strict=True):
      np.testing.assert_array_equal(
        images, event_trees.frames_by_loop(events[name], 10, 30_000, 1, 34)
      )


def test_builders_are_those_of_the_library(tmp_path):
  """`tfds.builder` makes the same, with a configuration for each binning."""
  import tensorflow_datasets as tfds

  files = {
    name: recordings.n_mnist(e) for name, e in event_trees.n_mnist(1).items()
  }
  event_trees.write_folder(tmp_path / 'manual', files)
  # A link beside its target is no second recording.
  (tmp_path / 'manual' / 'Backup').symlink_to(tmp_path / 'manual' / 'Train')
  frames = FrameSpec(10, 'count')
  ours = load('n_mnist', tmp_path, frames).test
  assert list(tfds.builder_cls('n_mnist').builder_configs) == [
    't10_window30000us_down1.0',
    't10_span_down1.0',
    't10_count_down1.0',
  ]
  builder = tfds.builder(
    f'n_mnist/{frames.name}', data_dir=tmp_path / 'library'
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / 'manual')
  )
  theirs = builder.as_data_source('test')
  assert len(theirs) == 10
  for i in range(10):
    np.testing.assert_array_equal(theirs[i]['frames'], ours.images[i])
    assert theirs[i]['label'] == ours.labels[i]
    assert theirs[i]['events'] == 60
  metadata = tfds.builder_from_directory(builder.data_dir).info.metadata
  assert FrameSpec(**metadata['frames']) == frames


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('dvs_gestures', {}, r"'dvs_gestures' is unknown \(did you mean 'dvs_ges"),
    ('digits', {}, 'known: dvs_gesture, cifar10_dvs, n_mnist'),
    ('n_mnist', {'downsample': 0}, 'from 1 to 10000, got 0'),
    ('n_mnist', {'window_ms': 1e-9}, 'at least 0.001, a microsecond'),
    ('n_mnist', {'window_ms': 0}, "'window' needs the length of a window"),
  ],
)
def test_mistakes_in_frames(name, options, message):
  with pytest.raises(UserError, match=message) as error:
    loading.paper_frames(name, **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'backwards': 'sorted'}, r"\(did you mean 'sort'\?\)"),
    ({'manual_dir': '/nowhere'}, '/nowhere does not exist. Download'),
    ({'manual_dir': __file__}, 'is none of the archives Train'),
    ({'frames': FrameSpec(2, 'span', 0, 35)}, 'at most 34, the side of the'),
    (
      {'frames': FrameSpec(2, 'span', 0, 9, crop=(8, 20))},
      'downsample must be at most 8, the side of the crop of n_mnist, got 9',
    ),
    (
      {'frames': FrameSpec(2, 'span', crop=(35, 34))},
      'crop must be at most the sensor, 34 x 34 pixels, got 35 x 34',
    ),
    ({}, r'Test\.zip.*https://.*--config\.data\.manual_dir=DIR .*prepare'),
  ],
)
def test_mistakes_in_a_preparation(tmp_path, options, message):
  root = tmp_path / 'prepared'
  with pytest.raises(UserError, match=message) as error:
    loading.prepare('n_mnist', data_dir=str(root), **options)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.rglob('dataset_info.json'))


def test_what_is_prepared_is_listed_with_what_differs(tmp_path):
  files = {
    name: recordings.n_mnist(e) for name, e in event_trees.n_mnist(1).items()
  }
  event_trees.write_folder(tmp_path / 'manual', files)
  for frames in (FrameSpec(10, 'span'), FrameSpec(4, 'window', 7000, 17.0)):
    prepare('n_mnist', tmp_path, frames)
  (tmp_path / 'prepared' / 'n_mnist' / 'junk' / '1.0.0').mkdir(parents=True)
  with pytest.raises(UserError) as error:
    loading.prepare('n_mnist', FrameSpec(4, 'span'), str(tmp_path / 'prepared'))
  message = str(error.value)
  assert '\n' not in message and 'downloaded by hand' not in message
  for part in (
    'with other frames: ',
    't10_span_down1.0/1.0.0 (time_steps is 10, not 4); ',
    "(binning is 'window', not 'span', window_us is 7000, not 0, downsample is "
    '17.0, not 1.0). Ask for those, or name the recordings',
    '--config.data.manual_dir=DIR',
  ):
    assert part in message


def test_frames_of_an_earlier_version_are_not_taken(tmp_path):
  """They would not be upright."""
  write_cifar(tmp_path, 1)
  prepare('cifar10_dvs', tmp_path)
  folder = tmp_path / 'prepared' / 'cifar10_dvs' / SMALL.name
  (folder / '2.0.0').rename(folder / '1.0.0')
  with pytest.raises(
    UserError, match=r'version 1.0.0, which version 2.0.0 repl'
  ):
    loading.prepare('cifar10_dvs', SMALL, str(tmp_path / 'prepared'))
  prepare('cifar10_dvs', tmp_path)
  versions = sorted(path.name for path in folder.iterdir())
  assert versions == ['1.0.0', '2.0.0']


def test_mirrored_and_cropped_frames_are_prepared_apart(tmp_path):
  write_cifar(tmp_path, 1)
  spec = FrameSpec(2, 'span', downsample=3.04)
  mirrored = dataclasses.replace(spec, mirrored=True)
  cropped = dataclasses.replace(spec, crop=(64, 96))
  upright, published, middle = (
    load('cifar10_dvs', tmp_path, frames).test
    for frames in (spec, mirrored, cropped)
  )
  assert middle.images.shape[1:] == (2, 21, 32, 2)
  assert upright.ids.tolist() == published.ids.tolist()
  assert np.any(upright.images[:] != published.images[:])
  lines = prepare('cifar10_dvs', tmp_path, mirrored)
  assert '2 frames by span, mirrored left and right and downsampled by' in (
    '\n'.join(lines)
  )
  lines = prepare('cifar10_dvs', tmp_path, cropped)
  assert '2 frames by span, cropped to 64 x 96 and downsampled by' in (
    '\n'.join(lines)
  )


def test_skipped_recordings_are_a_warning_and_described(tmp_path):
  name = 'user10_fluorescent_led_labels.csv'
  files = {n: c for n, c in GESTURES.items() if n != name}
  write_gestures(tmp_path, files)
  message = f'1 skipped of dvs_gesture, the first: .*{name} is missing'
  with pytest.warns(UserWarning, match=message):
    assert len(load('dvs_gesture', tmp_path).train) == 22
  *_, skips, line = prepare('dvs_gesture', tmp_path)
  assert skips.startswith('1 skipped; to have what is mended since')
  assert f'{name} is missing' in line


def test_recordings_that_go_back_may_be_sorted(tmp_path):
  back = recordings.cifar10_dvs(
    [(9000, 1, 2, 1), (5000, 3, 4, 0), (7000, 5, 6, 1)]
  )
  write_cifar(tmp_path, 2, **{'cat/cifar10_cat_1.aedat': back})
  lines = prepare('cifar10_dvs', tmp_path, backwards='sort')
  assert lines[-1] == '0 skipped'
  test = load('cifar10_dvs', tmp_path).test
  (i,) = np.flatnonzero(test.ids == 'cifar10_cat_1')
  in_order = [(5000, 3, 4, 0), (7000, 5, 6, 1), (9000, 1, 2, 1)]
  np.testing.assert_array_equal(
    test.images[i], event_trees.frames_by_loop(in_order, 5, 70_000, 16, 128)
  )
  with pytest.raises(UserError, match="was prepared with backwards='sort'"):
    prepare('cifar10_dvs', tmp_path, backwards='error')


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('*.array_record*', None, 'cannot be read'),
    ('*.array_record*', b'', 'is empty'),
    ('metadata.json', b'{}', 'KeyError'),
    ('metadata.json', b'{"mlf_jax": "1"}', 'KeyError'),
    ('dataset_info.json', None, 'lacks dataset_info.json: delete it'),
  ],
)
def test_damaged_folder_of_a_data_set(tmp_path, file, content, message):
  write_cifar(tmp_path, 1)
  lines = prepare('cifar10_dvs', tmp_path)
  assert lines[1].startswith('10 recordings of the 10,000 published')
  assert lines[2].endswith('told apart by the name of a split, when loaded')
  (path,) = (tmp_path / 'prepared').glob(f'**/2.0.0/{file}')
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  for arguments in ([str(tmp_path / 'manual')], []):
    with pytest.raises(UserError, match=message) as error:
      folder = loading.prepare(
        'cifar10_dvs', SMALL, str(tmp_path / 'prepared'), *arguments
      )
      loading.describe_prepared(folder)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', EVENT_SETS)
def test_frames_are_those_of_the_paper_unless_told_otherwise(name):
  frames = EVENT_SETS[name].frames
  assert loading.paper_frames(name) == data.DATASETS[name].frames == frames
  span = loading.paper_frames(name, binning='span', window_ms=0.0)
  assert (span.binning, span.window_us) == ('span', 0)
  assert loading.paper_frames(name, window_ms=1.5).window_us == 1500
