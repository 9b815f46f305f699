"""Event-camera data sets from the published archives to frames."""

import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest

from mlf_jax import UserError, cli, data
from mlf_jax.data import conversion, event_sets, prepared, splits
from mlf_jax.data.frames import FrameSpec
from tests.data import event_trees, recordings

# By subject 1 to 23 train; the lists below say otherwise.
USERS = (2, 10, 23, 24, 29)
BY_SUBJECT = (24, 29)
BY_LIST = (10, 24)
GESTURES, GESTURE_SAMPLES = event_trees.dvs_gesture(USERS)
SMALL = FrameSpec(5, 'window', 70_000, 16.0)


def load(name, split, folder, frames=SMALL, **kwargs):
  return data.load(
    name,
    split,
    data_dir=str(folder / 'prepared'),
    manual_dir=str(folder / 'manual'),
    frames=frames,
    **kwargs,
  )


def prepare(name, folder, frames=SMALL, **kwargs):
  directory = prepared.prepare(
    name, frames, str(folder / 'prepared'), str(folder / 'manual'), **kwargs
  )
  return prepared.describe(directory).splitlines()


def write_gestures(folder, files=GESTURES, archive=True):
  """DVS-Gesture as downloaded or as extracted, in `folder/manual`."""
  manual = folder / 'manual'
  manual.mkdir()
  files = {f'DvsGesture/{name}': content for name, content in files.items()}
  if archive:
    event_trees.write_tar(manual / 'DvsGesture.tar.gz', files)
  else:
    event_trees.write_folder(manual, files)


def write_cifar(folder, per_class, zipped=True, **changes):
  """CIFAR10-DVS as downloaded or as extracted, in `folder/manual`."""
  events = event_trees.cifar10_dvs(per_class)
  files = {name: recordings.aedat2(e) for name, e in events.items()} | changes
  if zipped:
    event_trees.write_zips(folder / 'manual', files)
  else:
    event_trees.write_folder(folder / 'manual', files)
  return events


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
  assert lines[2].split() == ['train', 'test']
  assert lines[3].split() == ['hand_clapping', '3', '2']
  assert lines[14].split() == ['samples', '33', '22']
  # 0.4 s of 1.2: the windows from the 15th on, at the latest.
  assert '65.' in lines[15] and '% of the frames begin after' in lines[15]
  assert lines[17] == '0 skipped'


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
      f'cifar10_{name}_{i}'
      for name in event_trees.CIFAR_CLASSES
      for i in numbers
    ]
    # Numerically: 2 comes before 10.
    assert train.ids.tolist() == [
      f'cifar10_{name}_{i}'
      for name in event_trees.CIFAR_CLASSES
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
    assert event_trees.CIFAR_CLASSES[label] == kind
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


# --- What is wrong with a recording: it is left out, and that is reported ---


def changed(name, content):
  return {**GESTURES, name: content}


def without(name):
  return {key: value for key, value in GESTURES.items() if key != name}


AEDAT, CSV = 'user10_fluorescent_led.aedat', 'user10_fluorescent_led_labels.csv'
BACK = recordings.aedat3([(5000, 1, 2, 0), (4000, 3, 4, 1)])


@pytest.mark.parametrize(
  ('files', 'left', 'message'),
  [
    (
      changed(AEDAT, GESTURES[AEDAT][:-5]),
      22,
      f'manual/DvsGesture/{AEDAT}: byte {len(GESTURES[AEDAT]) - 5}: truncated',
    ),
    (
      changed(AEDAT, recordings.n_mnist([(0, 1, 1, 0)])),
      22,
      f'{AEDAT}: byte 0: this is no AEDAT file',
    ),
    (changed(AEDAT, BACK), 22, 'time goes back from 5000 to 4000 us'),
    (
      changed(AEDAT, recordings.aedat3([])),
      22,
      f'{AEDAT} has no events',
    ),
    (
      changed(AEDAT, recordings.aedat3([(0, 128, 1, 1)])),
      22,
      'x = 128 is outside the sensor, 0 to 127',
    ),
    (without(CSV), 22, f'{CSV} is missing'),
    (
      changed(CSV, GESTURES[CSV].replace(b'startTime_usec', b'start')),
      22,
      f'{CSV}: byte 0: the column startTime_usec is missing',
    ),
    (changed(CSV, b''), 22, f'{CSV}: byte 0: the column class is missing'),
    (
      changed(CSV, GESTURES[CSV] + b'3,10\n'),
      22,
      "line 13: ['3', '10', None] are not three numbers",
    ),
    (
      changed(CSV, GESTURES[CSV] + b'12,200000,300000\n'),
      33,
      f'{CSV}: line 13: class 12 is none of 1 to 11',
    ),
    (
      changed(CSV, GESTURES[CSV] + b'1,90000000,91000000\n'),
      33,
      'line 13: no events from 90000000 to 91000000 us; the recording lasts',
    ),
    (
      GESTURES
      | {
        'trials_to_train.txt': b'user02_fluorescent_led.aedat\n',
        'trials_to_test.txt': b'user24_fluorescent_led.aedat\n',
      },
      11,
      f'{AEDAT}: it is in neither list of trials',
    ),
    (
      GESTURES | {'trials_to_train.txt': b'user01_lab.aedat\n'},
      33,
      'user01_lab.aedat: it is listed in trials_to_train.txt, but missing',
    ),
  ],
)
def test_what_cannot_be_used_is_skipped_and_reported(
  tmp_path, files, left, message
):
  write_gestures(tmp_path, files, archive=False)
  with pytest.warns(UserWarning, match='skipped of dvs_gesture, the first'):
    dataset = load('dvs_gesture', 'train', tmp_path)
  assert len(dataset) == left
  lines = prepare('dvs_gesture', tmp_path)
  skips = lines[lines.index(next(x for x in lines if x.endswith('skipped'))) :]
  assert len(skips) == 1 + int(skips[0].split()[0])
  assert any(message in line for line in skips), skips


def test_recordings_that_go_back_may_be_sorted(tmp_path):
  back = recordings.aedat2([(9000, 1, 2, 1), (5000, 3, 4, 0), (7000, 5, 6, 1)])
  write_cifar(tmp_path, 2, **{'cat/cifar10_cat_1.aedat': back})
  lines = prepare('cifar10_dvs', tmp_path, backwards='sort')
  assert lines[-1] == '0 skipped'
  dataset = load('cifar10_dvs', 'test', tmp_path)
  (i,) = np.flatnonzero(dataset.ids == 'cifar10_cat_1')
  np.testing.assert_array_equal(
    dataset.images[i],
    event_trees.frames_by_loop(
      [(5000, 3, 4, 0), (7000, 5, 6, 1), (9000, 1, 2, 1)], 5, 70_000, 16, 128
    ),
  )
  with pytest.raises(UserError, match="was prepared with backwards='sort'"):
    prepare('cifar10_dvs', tmp_path, backwards='error')


# --- What is wrong with an archive: nothing is prepared ---


def tar_member(name, kind=tarfile.REGTYPE):
  member = tarfile.TarInfo(name)
  member.type, member.linkname = kind, '/etc/passwd'
  return member


def zip_member(folder, name, mode=0o100644):
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  with zipfile.ZipFile(folder / 'manual' / 'dog.zip', 'a') as archive:
    archive.writestr(info, '/etc/passwd')


@pytest.mark.parametrize(
  ('member', 'fault'),
  [
    (tar_member('../user02_led.aedat'), 'would lie outside of it'),
    (tar_member('/user02_led.aedat'), 'would lie outside of it'),
    (tar_member('user02_led.aedat', tarfile.SYMTYPE), 'is a link'),
    (tar_member('user02_led.aedat', tarfile.LNKTYPE), 'is a link'),
  ],
)
def test_tar_archive_that_reaches_outside(tmp_path, member, fault):
  (tmp_path / 'manual').mkdir()
  path = tmp_path / 'manual' / 'DvsGesture.tar.gz'
  event_trees.write_tar(path, GESTURES, member)
  with pytest.raises(UserError, match=f"'{member.name}' {fault}"):
    prepare('dvs_gesture', tmp_path)
  assert not list(tmp_path.glob('**/user02_led.aedat'))


@pytest.mark.parametrize(
  ('name', 'mode', 'fault'),
  [
    ('../cifar10_dog_9.aedat', 0o100644, 'would lie outside of it'),
    ('..\\cifar10_dog_9.aedat', 0o100644, 'would lie outside of it'),
    ('dog/cifar10_dog_9.aedat', 0o120777, 'is a link'),
  ],
)
def test_zip_archive_that_reaches_outside(tmp_path, name, mode, fault):
  write_cifar(tmp_path, 2)
  zip_member(tmp_path, name, mode)
  with pytest.raises(UserError, match=fault) as error:
    prepare('cifar10_dvs', tmp_path)
  assert 'dog.zip' in str(error.value) and '\n' not in str(error.value)


def test_archives_that_are_cut_short(tmp_path):
  (tmp_path / 'manual').mkdir()
  tar = tmp_path / 'manual' / 'DvsGesture.tar.gz'
  event_trees.write_tar(tar, GESTURES)
  tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
  with pytest.raises(UserError, match=r'DvsGesture\.tar\.gz cannot be read as'):
    prepare('dvs_gesture', tmp_path)
  archive = tmp_path / 'manual' / 'Train.zip'
  with zipfile.ZipFile(archive, 'w') as file:
    file.writestr('Train/0/1.bin', b'12345')
  archive.write_bytes(archive.read_bytes()[:-9])
  with pytest.raises(
    UserError, match=r'Train\.zip cannot be read as a zip arch'
  ):
    prepare('n_mnist', tmp_path)


def test_damage_within_a_zip_archive_costs_one_recording(tmp_path):
  write_cifar(tmp_path, 2, **{'cat/cifar10_cat_0.aedat': b'x' * 50})
  path = tmp_path / 'manual' / 'cat.zip'
  content = path.read_bytes()
  # The checksum of the zip archive finds it.
  with zipfile.ZipFile(path) as archive:
    at = archive.getinfo('cat/cifar10_cat_1.aedat').header_offset
  path.write_bytes(content[: at + 90] + b'XYZ' + content[at + 93 :])
  with pytest.warns(UserWarning, match='^2 skipped of cifar10_dvs'):
    lines = prepare('cifar10_dvs', tmp_path)
  assert f'{path}: cat/cifar10_cat_1.aedat: byte' in lines[-1]
  assert sum('cifar10_cat' in line for line in lines) == 2


@pytest.mark.parametrize(
  ('name', 'write', 'messages'),
  [
    ('dvs_gesture', None, ['DvsGesture.tar.gz (3 GB', 'research.ibm.com']),
    ('cifar10_dvs', None, ['airplane.zip to truck.zip (8 GB', 'figshare.com']),
    ('n_mnist', None, ['Train.zip and Test.zip', 'garrickorchard.com']),
    (
      'cifar10_dvs',
      lambda f: (write_cifar(f, 1), (f / 'manual' / 'dog.zip').unlink()),
      ["no recordings of class 'dog' of cifar10_dvs"],
    ),
    (
      'dvs_gesture',
      lambda f: write_gestures(
        f, {n: c for n, c in GESTURES.items() if n < 'user24'}
      ),
      ['holds no test recordings of dvs_gesture'],
    ),
    (
      'dvs_gesture',
      lambda f: write_gestures(
        f, GESTURES | {n: b'' for n in GESTURES if n > 'user24'}
      ),
      ['no test sample of dvs_gesture is left', '2 skipped', 'it is empty'],
    ),
  ],
)
def test_missing_data(tmp_path, name, write, messages):
  if write:
    write(tmp_path)
  else:
    (tmp_path / 'manual').mkdir()
  with pytest.raises(UserError) as error:
    prepare(name, tmp_path)
  for message in messages:
    assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_no_data_given_says_what_to_download_and_what_to_run(tmp_path):
  with pytest.raises(UserError) as error:
    prepared.prepare('dvs_gesture', None, str(tmp_path / 'prepared'))
  for part in ('3 GB', 'https://', '--config.data.manual_dir=DIR', 'prepare'):
    assert part in str(error.value)
  assert not (tmp_path / 'prepared').exists()


# --- What is killed goes on ---

_KILLED = """
import os, signal, sys
from mlf_jax.data import conversion, prepared
from mlf_jax.data.frames import FrameSpec
conversion._UNIT_RECORDINGS = 4
convert, done = conversion._convert_unit, []
def convert_and_die(task):
  convert(task)
  done.append(task)
  if len(done) == 2:
    os.kill(os.getpid(), signal.SIGKILL)
conversion._convert_unit = convert_and_die
frames = FrameSpec(5, 'window', 70_000, 16.0)
prepared.prepare('cifar10_dvs', frames, *sys.argv[1:], processes=1)
"""


def test_killed_preparation_goes_on(tmp_path, monkeypatch):
  write_cifar(tmp_path, 2)
  folders = [str(tmp_path / 'prepared'), str(tmp_path / 'manual')]
  killed = subprocess.run(
    [sys.executable, '-c', _KILLED, *folders], check=False
  )
  assert killed.returncode == -signal.SIGKILL
  assert not list(tmp_path.rglob('dataset_info.json'))
  monkeypatch.setattr(conversion, '_UNIT_RECORDINGS', 4)
  converted = []
  convert = conversion._convert_unit
  monkeypatch.setattr(
    conversion, '_convert_unit', lambda t: (converted.append(t), convert(t))
  )
  prepare('cifar10_dvs', tmp_path, processes=1)
  assert len(converted) == 3  # Of five.
  resumed = load('cifar10_dvs', 'train', tmp_path)
  # The same as a preparation in one go.
  (tmp_path / 'prepared').rename(tmp_path / 'first')
  prepare('cifar10_dvs', tmp_path, processes=1)
  assert len(converted) == 8
  whole = load('cifar10_dvs', 'train', tmp_path)
  np.testing.assert_array_equal(resumed.images, whole.images)
  assert resumed.split_hash == whole.split_hash


def test_units_of_other_frames_are_not_taken(tmp_path):
  write_cifar(tmp_path, 1)
  work = tmp_path / 'work'
  work.mkdir()
  event_set = event_sets.EVENT_SETS['cifar10_dvs']

  def convert(spec):
    return conversion.convert(
      event_set, str(tmp_path / 'manual'), spec, work, processes=1
    )

  first = convert(SMALL).paths
  assert convert(SMALL).paths == first
  (sample, *_) = convert(FrameSpec(5, 'window', 60_000, 16.0)).samples('train')
  assert sample['frames'].shape == (5, 8, 8, 2)
  assert not any(path.exists() for path in first)


def test_archive_that_was_replaced_is_extracted_anew(tmp_path):
  work = tmp_path / 'work'
  work.mkdir()
  (tmp_path / 'manual').mkdir()
  for seed in (1, 2):
    files, samples = event_trees.dvs_gesture(USERS, seed=seed)
    event_trees.write_tar(tmp_path / 'manual' / 'DvsGesture.tar.gz', files)
    converted = conversion.convert(
      event_sets.EVENT_SETS['dvs_gesture'],
      str(tmp_path / 'manual'),
      SMALL,
      work,
      processes=1,
    )
    for sample in converted.samples('test'):
      label, events = samples[sample['id']]
      assert sample['label'] == label
      np.testing.assert_array_equal(
        sample['frames'],
        event_trees.frames_by_loop(events, 5, 70_000, 16, 128),
      )


_SLOW = """
import sys, time
from mlf_jax.data import conversion, prepared
if __name__ == '__main__':
  conversion._UNIT_RECORDINGS = 1
  print(prepared.prepare(
    'cifar10_dvs', None, *sys.argv[1:3], processes=int(sys.argv[3])
  ))
"""


def test_processes_share_the_work_and_end_with_their_parent(tmp_path):
  write_cifar(tmp_path, 2)
  script = tmp_path / 'prepare.py'
  script.write_text(_SLOW)
  folders = [str(tmp_path / 'prepared'), str(tmp_path / 'manual')]
  command = [sys.executable, str(script), *folders, '2']
  # A session of its own, so that its processes can be counted.
  killed = subprocess.Popen(
    command, start_new_session=True, stdout=subprocess.DEVNULL
  )
  deadline = time.monotonic() + 60
  while not list(tmp_path.rglob('*.npz')) and time.monotonic() < deadline:
    time.sleep(0.05)
  killed.kill()
  killed.wait()
  while time.monotonic() < deadline:
    try:
      os.killpg(killed.pid, 0)
    except ProcessLookupError:
      break
    time.sleep(0.1)
  else:
    pytest.fail('processes outlived their parent')
  assert not list(tmp_path.rglob('dataset_info.json'))
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  frames = event_sets.EVENT_SETS['cifar10_dvs'].frames
  assert len(load('cifar10_dvs', 'train', tmp_path, frames)) == 10


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
  ],
)
def test_mistakes_of_the_prepare_command(tmp_path, capsys, arguments, message):
  assert cli.main(['prepare', *arguments, f'--data_dir={tmp_path}']) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert message in err
