"""What is wrong with a data set is left out and told, or is an error."""

import errno
import os
import shutil
import tarfile
import types
import zipfile

import numpy as np
import pytest
from mlf_jax.data.frames import FrameSpec

from mlf_jax import UserError
from mlf_jax.data import event_archives, prepared
from tests.data import event_trees, recordings
from tests.data.preparing import (
  BY_SUBJECT,
  GESTURES,
  SMALL,
  load,
  prepare,
  write_cifar,
  write_gestures,
)

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
      "endTime_usec are ['3', '10', ''], not three numbers",
    ),
    (
      changed(CSV, GESTURES[CSV] + b'12,200000,300000\n'),
      33,
      f'{CSV}: line 13: class 12 is none of 1 to 11',
    ),
    (
      changed(CSV, GESTURES[CSV] + b'0,200000,300000\n'),
      33,
      'line 13: class 0 is none of 1 to 11',
    ),
    (
      changed(CSV, GESTURES[CSV].splitlines(keepends=True)[0]),
      22,
      f'{CSV} names no gesture',
    ),
    (
      changed(CSV, GESTURES[CSV] + b'1,' + b'9' * 5000 + b',0\n'),
      22,
      'not three numbers',
    ),
    (
      changed(CSV, GESTURES[CSV] + b'"' + b'x' * 200_000),
      22,
      f'{CSV}: line 13: field larger than field limit',
    ),
    (
      GESTURES
      | {
        'trials_to_train.txt': b'user02_fluorescent_led.aedat\n'
        b'user10_fluorescent_led.aedat\nuser23_led.aedat\n'
        b'user24_fluorescent_led.aedat\n',
        'trials_to_test.txt': b'user24_fluorescent_led.aedat\n'
        b'user29_led.aedat\n',
      },
      33,
      'user24_fluorescent_led.aedat: more than one of the lists of trials',
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
      f'{AEDAT}: neither of the lists of trials names it',
    ),
    (
      GESTURES
      | event_trees.trial_lists(GESTURES, BY_SUBJECT)
      | {
        'trials_to_train.txt': b'user02_fluorescent_led.aedat\n'
        b'user01_lab.aedat\n'
      },
      11,
      'trials_to_train.txt lists it, but it is missing',
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
  (start,) = (i for i, line in enumerate(lines) if ' skipped; to have' in line)
  skips = lines[start:]
  assert len(skips) == 1 + int(skips[0].split()[0])
  assert any(message in line for line in skips), skips


def test_any_line_end_and_order_of_columns_will_do(tmp_path):
  rows = [row.split(b',') for row in GESTURES[CSV].split()]
  text = b'\r'.join(b', '.join([b, c, a]) for a, b, c in rows)
  write_gestures(tmp_path, changed(CSV, text))
  assert len(load('dvs_gesture', 'train', tmp_path)) == 33


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
      ["no train recordings of class 'dog' of cifar10_dvs"],
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


def test_damaged_tar_archive_is_noticed_wherever_it_is_damaged(tmp_path):
  """gzip's checksum is at its end, where tar does not read."""
  files, _ = event_trees.dvs_gesture([1], count=5)
  path = tmp_path / 'DvsGesture.tar.gz'
  event_trees.write_tar(path, files)
  content = bytearray(path.read_bytes())
  random = np.random.default_rng(0)
  damaged = [
    content[:length] for length in random.integers(len(content), size=60)
  ]
  for at in random.integers(10, len(content), 60):
    damaged.append(content.copy())
    damaged[-1][at] ^= 1 << random.integers(8)
  for number, version in enumerate(damaged):
    path.write_bytes(version)
    with pytest.raises(UserError, match='download it again'):
      event_archives.extract(path, tmp_path / str(number), lambda name: True)
    assert not (tmp_path / str(number)).exists()


def test_archive_is_taken_where_it_is_also_half_extracted(tmp_path):
  write_gestures(tmp_path)
  half = dict(list(GESTURES.items())[:4])
  half[AEDAT] = GESTURES[AEDAT][:2000]
  event_trees.write_folder(tmp_path / 'manual' / 'DvsGesture', half)
  assert len(load('dvs_gesture', 'train', tmp_path)) == 33


def test_zip_archive_is_taken_where_it_is_also_half_extracted(tmp_path):
  events = write_cifar(tmp_path, 2)
  name = 'cat/cifar10_cat_1.aedat'
  half = recordings.aedat2(events[name][:9])
  event_trees.write_folder(tmp_path / 'manual', {name: half})
  lines = prepare('cifar10_dvs', tmp_path)
  assert '1,200 events in samples' in lines[1] and lines[-1] == '0 skipped'


def test_files_that_are_there_twice(tmp_path):
  write_cifar(tmp_path, 1, zipped=False)
  name = 'cat/cifar10_cat_0.aedat'
  content = (tmp_path / 'manual' / name).read_bytes()
  copy = tmp_path / 'manual' / 'again'
  event_trees.write_folder(copy, {name: content})
  with pytest.warns(UserWarning, match='is the same as'):
    assert prepare('cifar10_dvs', tmp_path)[1].startswith('10 recordings')
  event_trees.write_folder(copy, {name: content[:-8]})
  with pytest.raises(UserError, match='have the same name, but not the same'):
    prepare('cifar10_dvs', tmp_path, FrameSpec(3, 'count', 0, 16.0))


def test_links(tmp_path):
  """Folders that are links count, circles end, what leads nowhere is told."""
  write_cifar(tmp_path, 2, zipped=False)
  manual = tmp_path / 'manual'
  (manual / 'cat').rename(tmp_path / 'elsewhere')
  (manual / 'cat').symlink_to(tmp_path / 'elsewhere')
  (manual / 'dog' / 'up').symlink_to(manual)
  (manual / 'a folder').symlink_to('/nowhere')
  lost = manual / 'dog' / 'cifar10_dog_1.aedat'
  lost.unlink()
  lost.symlink_to('/nowhere')
  with pytest.warns(UserWarning, match='2 skipped .* link that leads nowhere'):
    lines = prepare('cifar10_dvs', tmp_path)
  assert lines[1].startswith('19 recordings')
  (manual / 'dog.zip').symlink_to('/nowhere')
  with pytest.raises(UserError, match=r'dog\.zip is a link that leads nowhere'):
    prepare('cifar10_dvs', tmp_path, FrameSpec(3, 'count', 0, 16.0))


def test_links_beside_what_they_lead_to(tmp_path):
  files = {
    name: recordings.n_mnist(events)
    for name, events in event_trees.n_mnist(1).items()
  }
  event_trees.write_folder(tmp_path / 'manual', files)
  (tmp_path / 'manual' / 'Backup').symlink_to(tmp_path / 'manual' / 'Train')
  assert prepare('n_mnist', tmp_path)[-1] == '0 skipped'


def test_two_archives_of_one_name(tmp_path):
  write_gestures(tmp_path)
  archive = tmp_path / 'manual' / 'DvsGesture.tar.gz'
  content = {'again/DvsGesture.tar.gz': archive.read_bytes()}
  event_trees.write_folder(tmp_path / 'manual', content)
  with pytest.raises(UserError, match='are both there: name the one'):
    prepare('dvs_gesture', tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every folder')
def test_folder_that_cannot_be_read(tmp_path):
  write_cifar(tmp_path, 1, zipped=False)
  (tmp_path / 'manual' / 'cat').chmod(0)
  with pytest.raises(UserError, match='cat cannot be read'):
    prepare('cifar10_dvs', tmp_path)


def test_class_that_one_split_lacks(tmp_path):
  files = {
    name: recordings.n_mnist(events)
    for name, events in event_trees.n_mnist(1).items()
    if not name.startswith('Test/3')
  }
  event_trees.write_folder(tmp_path / 'manual', files)
  with pytest.raises(UserError, match="no test recordings of class '3'"):
    prepare('n_mnist', tmp_path)


def test_one_list_of_trials_alone(tmp_path):
  lists = event_trees.trial_lists(GESTURES, BY_SUBJECT)
  del lists['trials_to_test.txt']
  write_gestures(tmp_path, GESTURES | lists)
  with pytest.raises(UserError, match='both are needed, or neither'):
    prepare('dvs_gesture', tmp_path)


def test_archive_of_another_data_set(tmp_path):
  write_gestures(tmp_path)
  (tmp_path / 'manual' / 'DvsGesture.tar.gz').rename(tmp_path / 'Train.tar.gz')
  with pytest.raises(UserError, match=r'files such as Train/0/00002\.bin'):
    prepared.prepare(
      'n_mnist',
      SMALL,
      str(tmp_path / 'prepared'),
      str(tmp_path / 'Train.tar.gz'),
    )


def test_zip_archive_of_gestures_with_damaged_labels(tmp_path):
  manual = tmp_path / 'manual'
  manual.mkdir()
  path = manual / 'DvsGesture.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in GESTURES.items():
      archive.writestr(name, content)
    at = archive.getinfo(CSV).header_offset
  content = bytearray(path.read_bytes())
  content[at + 150] ^= 1
  path.write_bytes(content)
  with pytest.warns(UserWarning, match='Bad CRC-32'):
    prepared.prepare(
      'dvs_gesture', SMALL, str(tmp_path / 'prepared'), str(path)
    )


def test_archive_that_is_replaced_is_read_anew(tmp_path):
  for count in (20, 30):
    events = event_trees.cifar10_dvs(1, count=count)
    files = {name: recordings.aedat2(e) for name, e in events.items()}
    shutil.rmtree(tmp_path / 'manual', ignore_errors=True)
    event_trees.write_zips(tmp_path / 'manual', files)
    frames = FrameSpec(count, 'count', 0, 16.0)
    assert f'{10 * count} events' in prepare('cifar10_dvs', tmp_path, frames)[1]


def test_disk_without_room_for_an_archive(tmp_path, monkeypatch):
  write_gestures(tmp_path)
  size = (tmp_path / 'manual' / 'DvsGesture.tar.gz').stat().st_size
  usage = lambda folder: types.SimpleNamespace(free=2 * size - 1)
  monkeypatch.setattr(shutil, 'disk_usage', usage)
  with pytest.raises(UserError, match='GB to be extracted, but'):
    prepare('dvs_gesture', tmp_path)
  # What is extracted already needs no room any more.
  (folder,) = tmp_path.glob('prepared/**/preparing/extracted')
  event_trees.write_folder(folder / 'files', {'a file': b'1'})
  assert prepare('dvs_gesture', tmp_path)[-1] == '0 skipped'


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENOENT])
def test_fault_of_the_machine_skips_nothing(tmp_path, monkeypatch, number):
  write_cifar(tmp_path, 1, zipped=False)
  error = OSError(number, os.strerror(number))
  opened = lambda *a: (_ for _ in ()).throw(error)
  monkeypatch.setattr(event_archives, 'open', opened, raising=False)
  with pytest.raises(UserError, match=r'cannot be opened \((Too many|No such)'):
    prepare('cifar10_dvs', tmp_path)


@pytest.mark.parametrize(
  ('at', 'value', 'problem'),
  [
    (6, 132, 'cannot be read as a zip archive (zip file version 13.2)'),
    (8, 1, "cannot be opened (File 'dog/1.aedat' is encrypted"),
  ],
)
def test_zip_archive_that_cannot_be_decoded(tmp_path, at, value, problem):
  """A later version of the format, an encrypted member."""
  path = tmp_path / 'dog.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('dog/1.aedat', b'')
  content = bytearray(path.read_bytes())
  for header, before in ((b'PK\1\2', 0), (b'PK\3\4', 2)):
    content[content.index(header) + at - before] = value
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    (member,) = event_archives.in_zip(path)
    with member.open():
      pass
  assert problem in str(error.value)
