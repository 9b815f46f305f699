"""Event-camera data sets from the published archives to frames."""

import signal

import numpy as np
import pytest
from mlf_jax.data.frames import FrameSpec

from mlf_jax import UserError, cli
from mlf_jax.data import event_sets, prepared, splits
from tests.data import event_trees, recordings
from tests.data.miniature import CIFAR10_CLASSES
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


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('archive', [True, False])
@pytest.mark.parametrize('test_users', [BY_LIST, BY_SUBJECT])
def test_gestures(tmp_path, archive, test_users):
  files = dict(GESTURES)
  if test_users == BY_LIST:
    files |= event_trees.trial_lists(files, BY_LIST)
  write_gestures(tmp_path, files, archive)
  for split in ('train', 'test'):
    dataset = load('dvs_gesture', split, tmp_path)
    users = [u for u in USERS if (u in test_users) == (split == 'test')]
    expected = {
      name: sample
      for name, sample in GESTURE_SAMPLES.items()
      if int(name[4:6]) in users
    }
    assert dataset.ids.tolist() == list(expected)
    assert np.bincount(dataset.labels).tolist() == [len(users)] * 11
    assert dataset.split_name == 'official' and dataset.num_classes == 11
    for images, label, (true_label, events) in zip(
      dataset.images, dataset.labels, expected.values(), strict=True
    ):
      assert label == true_label
      np.testing.assert_array_equal(
        images, event_trees.frames_by_loop(events, 5, 70_000, 16, 128)
      )
  # Nothing but the data set is left, and it is enough.
  assert not list((tmp_path / 'prepared').rglob('preparing'))
  (tmp_path / 'manual').rename(tmp_path / 'elsewhere')
  assert len(load('dvs_gesture', 'test', tmp_path)) == 11 * len(test_users)


def test_frames_of_the_paper_are_the_default(tmp_path):
  write_gestures(tmp_path)
  lines = prepare('dvs_gesture', tmp_path, None, processes=1)
  frames = event_sets.EVENT_SETS['dvs_gesture'].frames
  dataset = load('dvs_gesture', 'train', tmp_path, frames)
  assert dataset.images.shape == (33, 40, 32, 32, 2)
  _, events = GESTURE_SAMPLES[dataset.ids[7]]
  np.testing.assert_array_equal(
    dataset.images[7], event_trees.frames_by_loop(events, 40, 30_000, 4, 128)
  )
  assert lines[1] == '5 recordings, 6,600 events in samples'
  assert lines[2].endswith('told apart by subject (1 to 23 train)')
  assert lines[3].split() == ['train', 'test']
  assert lines[4].split() == ['hand_clapping', '3', '2']
  assert lines[15].split() == ['samples', '33', '22']
  # 0.4 s of 1.2: the windows from the 15th on, at the latest.
  assert '65.' in lines[16] and '% of the frames begin after' in lines[16]
  assert lines[18] == '0 skipped'


@pytest.mark.parametrize('zipped', [True, False])
def test_cifar10_dvs_splits(tmp_path, zipped):
  events = write_cifar(tmp_path, 12, zipped)
  spec = FrameSpec(10, 'window', 10_000, 3.04)
  hashes = set()
  for split_name, numbers in (('tail', [11]), ('head', [0]), ('', [11])):
    test = load('cifar10_dvs', 'test', tmp_path, spec, split_name=split_name)
    train = load('cifar10_dvs', 'train', tmp_path, spec, split_name=split_name)
    assert test.split_name == (split_name or 'tail')
    assert test.ids.tolist() == [
      f'cifar10_{name}_{i}' for name in CIFAR10_CLASSES for i in numbers
    ]
    # Numerically: 2 comes before 10.
    assert train.ids.tolist() == [
      f'cifar10_{name}_{i}'
      for name in CIFAR10_CLASSES
      for i in range(12)
      if i not in numbers
    ]
    hashes |= {test.split_hash, train.split_hash}
  assert len(hashes) == 4
  assert train.images.shape == (110, 10, 42, 42, 2)
  for images, label, name in zip(
    train.images, train.labels, train.ids, strict=True
  ):
    kind = name.split('_')[1]
    assert CIFAR10_CLASSES[label] == kind
    np.testing.assert_array_equal(
      images,
      event_trees.frames_by_loop(
        events[f'{kind}/{name}.aedat'], 10, 10_000, 3.04, 128
      ),
    )


def test_hash_of_the_members_does_not_depend_on_the_frames(tmp_path):
  write_cifar(tmp_path, 3)
  a, b = (
    load('cifar10_dvs', 'test', tmp_path, spec, split_name='random-7')
    for spec in (SMALL, FrameSpec(3, 'count', 0, 32))
  )
  assert a.split_hash == b.split_hash and a.images.shape != b.images.shape
  assert a.split_name == 'random-7'


def test_random_splits_are_seeded_and_stratified():
  labels = np.repeat(np.arange(10), 1000).astype(np.int32)
  masks = {n: splits.test_mask(n, labels) for n in ('random', 'random-1')}
  for mask in masks.values():
    assert np.bincount(labels[mask]).tolist() == [100] * 10
  assert (masks['random'] == splits.test_mask('random-0', labels)).all()
  assert (masks['random'] != masks['random-1']).any()
  tail = splits.test_mask('tail', labels).reshape(10, 1000)
  assert tail[:, 900:].all() and not tail[:, :900].any()
  head = splits.test_mask('head', labels).reshape(10, 1000)
  assert head[:, :100].all() and not head[:, 100:].any()
  for wrong in ('tails', 'random-', 'random-x', 'random--1', 'random-01'):
    with pytest.raises(UserError, match='known: tail, head, random'):
      splits.test_mask(wrong, labels)


def test_n_mnist(tmp_path):
  events = event_trees.n_mnist(2)
  files = {name: recordings.n_mnist(e) for name, e in events.items()}
  event_trees.write_zips(tmp_path / 'manual', files)
  spec = event_sets.EVENT_SETS['n_mnist'].frames
  for split in ('train', 'test'):
    dataset = load('n_mnist', split, tmp_path, spec)
    names = [n for n in events if n.lower().startswith(split)]
    assert dataset.ids.tolist() == [n.removesuffix('.bin') for n in names]
    assert dataset.labels.tolist() == [int(n.split('/')[1]) for n in names]
    for images, name in zip(dataset.images, names, strict=True):
      np.testing.assert_array_equal(
        images, event_trees.frames_by_loop(events[name], 10, 30_000, 1, 34)
      )


def test_builders_are_those_of_the_library(tmp_path):
  """`tfds.builder` makes the same, and a configuration for each binning."""
  import tensorflow_datasets as tfds

  files = {
    name: recordings.n_mnist(e) for name, e in event_trees.n_mnist(1).items()
  }
  event_trees.write_folder(tmp_path / 'manual', files)
  frames = FrameSpec(10, 'count')
  ours = load('n_mnist', 'test', tmp_path, frames)
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
  assert metadata['frames'] == {
    'time_steps': 10,
    'binning': 'count',
    'window_us': 0,
    'downsample': 1.0,
  }


def test_no_data_given_says_what_to_download_and_what_to_run(tmp_path):
  with pytest.raises(UserError) as error:
    prepared.prepare('dvs_gesture', None, str(tmp_path / 'prepared'))
  for part in ('3 GB', 'https://', '--config.data.manual_dir=DIR', 'prepare'):
    assert part in str(error.value)
  assert not (tmp_path / 'prepared').exists()


# --- The command ---


def test_prepare_command(tmp_path, capsys):
  write_gestures(tmp_path)
  where = [f'--data_dir={tmp_path / "prepared"}']
  manual = [f'--manual_dir={tmp_path / "manual"}']
  options = ['--time_steps=5', '--window_ms=70', '--downsample=16']
  assert cli.main(['prepare', 'dvs_gesture', *where, *manual, *options]) == 0
  out = capsys.readouterr().out
  for part in ('5 recordings', 'hand_clapping', '0 skipped', 'of 70000 us'):
    assert part in out
  # Once prepared, it only tells.
  assert cli.main(['prepare', 'dvs_gesture', *where, *options]) == 0
  assert capsys.readouterr().out == out
  images = load('dvs_gesture', 'test', tmp_path).images
  assert images.shape == (22, 5, 8, 8, 2)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['dvs_gestures'], "'dvs_gestures' is unknown (did you mean 'dvs_gesture'"),
    (['digits'], 'known: dvs_gesture, cifar10_dvs, n_mnist'),
    (['n_mnist', '--binning=spam'], "(did you mean 'span'?)"),
    (['n_mnist', '--binning=span', '--window_ms=1'], "'window' needs"),
    (['n_mnist', '--downsample=0.5'], 'downsample must be at least 1, got 0.5'),
    (['n_mnist', '--backwards=sorted'], "(did you mean 'sort'?)"),
    (['n_mnist', '--manual_dir=/nowhere'], '/nowhere does not exist. Download'),
    (['n_mnist'], 'has to be downloaded by hand'),
    (['n_mnist', '--downsample=35'], 'must be at most 34, the side of the'),
    (['n_mnist', '--downsample=0'], 'downsample must be at least 1, got 0'),
    (['n_mnist', '--window_ms=1e-9'], 'at least 0.001, a microsecond'),
    (['n_mnist', '--window_ms=0'], "'window' needs the length of a window"),
    (['n_mnist', f'--manual_dir={__file__}'], 'is none of the archives Train'),
  ],
)
def test_mistakes_of_the_prepare_command(tmp_path, capsys, arguments, message):
  assert cli.main(['prepare', *arguments, f'--data_dir={tmp_path}']) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert message in err


@pytest.mark.filterwarnings('default:.*is prepared already')
def test_prepared_data_are_not_prepared_again(tmp_path, capsys):
  write_cifar(tmp_path, 1)
  prepare('cifar10_dvs', tmp_path, None)
  where = [f'--data_dir={tmp_path / "prepared"}', '--manual_dir=/elsewhere']
  assert cli.main(['prepare', 'cifar10_dvs', *where]) == 0
  out, err = capsys.readouterr()
  assert '10 recordings of the 10,000 published' in out
  assert 'told apart by the name of a split, when loaded' in out
  assert 'is prepared already, /elsewhere is not looked at' in err


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('*.array_record*', None, 'cannot be read'),
    ('*.array_record*', b'', 'is empty'),
    ('metadata.json', b'{}', "KeyError: 'mlf_jax'"),
    ('dataset_info.json', None, 'lacks dataset_info.json: delete it'),
  ],
)
def test_damaged_folder_of_a_data_set(tmp_path, capsys, file, content, message):
  write_cifar(tmp_path, 1)
  prepare('cifar10_dvs', tmp_path, None)
  (path,) = (tmp_path / 'prepared').glob(f'**/1.0.0/{file}')
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  where = f'--data_dir={tmp_path / "prepared"}'
  capsys.readouterr()
  assert cli.main(['prepare', 'cifar10_dvs', where]) == 2
  err = capsys.readouterr().err
  assert message in err and err.count('\n') == 1


@pytest.mark.parametrize('name', ['dvs_gesture', 'cifar10_dvs', 'n_mnist'])
def test_what_is_not_given_is_as_in_the_paper(name):
  frames = event_sets.EVENT_SETS[name].frames
  assert prepared.frames_of(name) == frames
  assert (
    prepared.frames_of(name, binning='span', window_ms=0.0).binning == 'span'
  )
  assert prepared.frames_of(name, window_ms=1.5).window_us == 1500


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_preparation_says_how_to_go_on(monkeypatch, capsys, number):
  before = signal.getsignal(signal.SIGTERM)
  interrupt = lambda *args: signal.raise_signal(number)
  monkeypatch.setattr(prepared, 'prepare', interrupt)
  assert cli.main(['prepare', 'n_mnist']) == 128 + signal.SIGINT
  err = capsys.readouterr().err
  assert err == 'interrupted; the same command goes on where it was\n'
  assert signal.getsignal(signal.SIGTERM) == before
