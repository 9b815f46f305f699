"""Mistakes in a data set are skipped and reported, or are an error."""

import errno
import hashlib
import os
import shutil
import types
import warnings
import zipfile

import pytest

from mlf_jax.data import archives
from mlf_jax.data.events import EVENT_SETS
from mlf_jax.errors import UserError
from tests.data import event_trees, recordings
from tests.data.preparing import (
  GESTURES,
  convert,
  write_cifar,
  write_gestures,
)

# The checksum of a miniature archive cannot be the published one.
pytestmark = pytest.mark.filterwarnings('ignore:.*has MD5')

# --- A mistake in a recording: it is left out, and that is reported ---


AEDAT, CSV = 'user10_fluorescent_led.aedat', 'user10_fluorescent_led_labels.csv'
ROWS = GESTURES[CSV]


def events(content):
  """The gestures, with another file of events."""
  return {**GESTURES, AEDAT: content}


def labels(content):
  """The gestures, with another file of labels."""
  return {**GESTURES, CSV: content}


def trials(train, test):
  """The gestures, with lists of the users in each split."""
  names = {n[4:6]: n for n in GESTURES if n.endswith('.aedat')}
  return GESTURES | {
    f'trials_to_{split}.txt': '\n'.join(
      names.get(user, f'user{user}_lab.aedat') for user in users.split()
    ).encode()
    for split, users in (('train', train), ('test', test))
  }


@pytest.mark.parametrize(
  ('files', 'left', 'message'),
  [
    (
      events(GESTURES[AEDAT][:-5]),
      22,
      f'manual/DvsGesture/{AEDAT}: byte {len(GESTURES[AEDAT]) - 5}: truncated',
    ),
    (
      events(recordings.aedat3([(5000, 1, 2, 0), (4000, 3, 4, 1)])),
      22,
      'time goes back from 5000 to 4000 us',
    ),
    (events(recordings.aedat3([])), 22, f'{AEDAT} has no events'),
    ({n: c for n, c in GESTURES.items() if n != CSV}, 22, f'{CSV} is missing'),
    (
      labels(ROWS.replace(b'startTime_usec', b'start')),
      22,
      f'{CSV}: byte 0: the column startTime_usec is missing',
    ),
    (labels(b''), 22, f'{CSV}: byte 0: the column class is missing'),
    (labels(ROWS + b'3,10\n'), 22, "are ['3', '10', ''], not three numbers"),
    (labels(ROWS + b'1,' + b'9' * 5000 + b',0\n'), 22, 'not three numbers'),
    (labels(ROWS + b'12,200000,300000\n'), 33, 'line 13: class 12 is none'),
    (labels(ROWS + b'0,200000,300000\n'), 33, 'class 0 is none of 1 to 11'),
    (
      labels(ROWS + b'3,9000000,8000000\n'),
      33,
      'line 13: its end, 8000000 us, is not after its start, 9000000 us',
    ),
    # As the published label of class 9 of user 22 under LED light.
    (
      labels(ROWS.replace(b',5200000,5600000', b',4900000,5600000')),
      32,
      'line 11: its end, 5100000 us, lies after 4900000 us, where the next',
    ),
    (labels(ROWS.splitlines()[0]), 22, f'{CSV} names no gesture'),
    (labels(ROWS + b'"' + b'x' * 200_000), 22, 'line 13: field larger than'),
    (labels(ROWS + b'1,90000000,91000000\n'), 33, 'no events from 90000000 to'),
    (trials('02 10 23 24', '24 29'), 33, 'more than one of the lists'),
    (trials('02', '24'), 11, f'{AEDAT}: neither of the lists of trials names'),
    (trials('02 01', '24 29'), 11, 'train.txt lists it, but it is missing'),
    # Any line end and order of columns will do.
    (
      labels(
        b'\r'.join(
          b', '.join([b, c, a])
          for a, b, c in (row.split(b',') for row in ROWS.split())
        )
      ),
      33,
      None,
    ),
  ],
)
def test_what_cannot_be_used_is_skipped_and_reported(
  tmp_path, files, left, message
):
  write_gestures(tmp_path, files, archive=False)
  shards, summary = convert('dvs_gesture', tmp_path)
  assert sum(len(report.labels) for _, report in shards['train']) == left
  skips = [f'{skip["what"]}: {skip["reason"]}' for skip in summary['skipped']]
  assert bool(skips) == bool(message)
  assert not message or any(message in line for line in skips), skips


# --- A mistake in an archive or in the whole ---


def skipped(name, folder, **options):
  """Lines about what was left out in a conversion."""
  _, summary = convert(name, folder, **options)
  return [f'{skip["what"]}: {skip["reason"]}' for skip in summary['skipped']]


def test_damage_within_a_zip_archive_costs_one_recording(tmp_path):
  write_cifar(tmp_path, 2, **{'cat/cifar10_cat_0.aedat': b'x' * 50})
  path = tmp_path / 'manual' / 'cat.zip'
  content = path.read_bytes()
  # The checksum of the zip archive finds it.
  with zipfile.ZipFile(path) as archive:
    at = archive.getinfo('cat/cifar10_cat_1.aedat').header_offset
  path.write_bytes(content[: at + 90] + b'XYZ' + content[at + 93 :])
  lines = skipped('cifar10_dvs', tmp_path)
  assert len(lines) == 2
  assert f'{path}: cat/cifar10_cat_1.aedat: byte' in lines[1]
  # An archive that is replaced is read anew.
  shutil.rmtree(tmp_path / 'manual')
  write_cifar(tmp_path, 2)
  assert not skipped('cifar10_dvs', tmp_path)


def folder_without(part, **files):
  """Files of gestures in a folder, but for those with `part` in their name."""
  kept = {n: c for n, c in GESTURES.items() if part not in n}
  return lambda folder: write_gestures(folder, kept | files, archive=False)


def write_without_dogs(folder):
  write_cifar(folder, 1)
  (folder / 'manual' / 'dog.zip').unlink()


def write_two_archives(folder):
  write_gestures(folder)
  archive = folder / 'manual' / 'DvsGesture.tar.gz'
  content = {'again/DvsGesture.tar.gz': archive.read_bytes()}
  event_trees.write_folder(folder / 'manual', content)


@pytest.mark.parametrize(
  ('name', 'write', 'message'),
  [
    ('dvs_gesture', write_without_dogs, r'tar.gz \(3 GB.*research.ibm.com'),
    ('n_mnist', write_gestures, 'Train/0/00002.bin.*garrickorchard.com'),
    ('cifar10_dvs', write_without_dogs, "no train recordings of class 'dog'"),
    ('dvs_gesture', folder_without('user2'), 'holds no t.* recordings of dvs'),
    (
      'dvs_gesture',
      folder_without('user29', **{'user24_fluorescent_led.aedat': b''}),
      'no test sample .*skipped',
    ),
    (
      'dvs_gesture',
      folder_without('none', **{'trials_to_test.txt': b''}),
      'both are needed, or neither',
    ),
    ('dvs_gesture', write_two_archives, 'are both there: name the one'),
  ],
)
def test_missing_data(tmp_path, name, write, message):
  write(tmp_path)
  with pytest.raises(UserError, match=message) as error:
    convert(name, tmp_path)
  assert '\n' not in str(error.value)


def test_archive_of_all_classes_is_read(tmp_path):
  events = event_trees.cifar10_dvs(1)
  files = {
    f'CIFAR10DVS/{n}': recordings.cifar10_dvs(e) for n, e in events.items()
  }
  event_trees.write_zips(tmp_path / 'manual', files)
  assert os.listdir(tmp_path / 'manual') == ['CIFAR10DVS.zip']
  _, summary = convert('cifar10_dvs', tmp_path)
  assert summary['samples']['train'] == dict.fromkeys(
    event_trees.CIFAR10_CLASSES, 1
  )


@pytest.mark.parametrize(
  ('member', 'message'),
  [
    (
      'CIFAR10DVS/cat.zip',
      r'other archives \(CIFAR10DVS/cat.zip\): extract it',
    ),
    (
      'CIFAR10DVS/cat/cifar10_cat_0.aedat4',
      'recordings in AEDAT 4 .*not read. Download the ten archives',
    ),
  ],
)
def test_archive_of_all_classes_in_another_form(tmp_path, member, message):
  event_trees.write_zips(tmp_path / 'manual', {member: b'content'})
  with pytest.raises(UserError, match=message):
    convert('cifar10_dvs', tmp_path)


def test_checksum_that_is_not_the_published_one_is_a_warning(
  tmp_path, monkeypatch
):
  write_gestures(tmp_path)
  content = (tmp_path / 'manual' / 'DvsGesture.tar.gz').read_bytes()
  found = hashlib.md5(content).hexdigest()
  published = '8a5c71fb11e24e5ca5b11866ca6c00a1'
  with pytest.warns(UserWarning, match=f'MD5 {found}, but {published} is'):
    convert('dvs_gesture', tmp_path)
  shutil.rmtree(tmp_path / 'work')
  monkeypatch.setitem(EVENT_SETS['dvs_gesture'].md5, 'DvsGesture.tar.gz', found)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    convert('dvs_gesture', tmp_path)
  with pytest.raises(UserError, match=f'3 GB; .*; MD5 {published}'):
    convert('dvs_gesture', tmp_path, manual='/nowhere')


def test_archive_is_taken_if_it_is_also_half_extracted(tmp_path):
  write_gestures(tmp_path)
  half = dict(list(GESTURES.items())[:4])
  half[AEDAT] = GESTURES[AEDAT][:2000]
  event_trees.write_folder(tmp_path / 'manual' / 'DvsGesture', half)
  assert not skipped('dvs_gesture', tmp_path)
  shutil.rmtree(tmp_path / 'manual')
  events = write_cifar(tmp_path, 2)
  name = 'cat/cifar10_cat_1.aedat'
  half = recordings.cifar10_dvs(events[name][:9])
  event_trees.write_folder(tmp_path / 'manual', {name: half})
  _, summary = convert('cifar10_dvs', tmp_path)
  assert summary['events'] == 1200 and not summary['skipped']


def test_files_that_are_there_twice(tmp_path):
  write_cifar(tmp_path, 1, zipped=False)
  name = 'cat/cifar10_cat_0.aedat'
  content = (tmp_path / 'manual' / name).read_bytes()
  copy = tmp_path / 'manual' / 'again'
  event_trees.write_folder(copy, {name: content})
  (line,) = skipped('cifar10_dvs', tmp_path)
  assert 'it is the same as' in line
  event_trees.write_folder(copy, {name: content[:-8]})
  with pytest.raises(UserError, match='have the same name, but not the same'):
    convert('cifar10_dvs', tmp_path)


def test_links(tmp_path):
  """Linked folders count, circles end, broken links are reported."""
  write_cifar(tmp_path, 2, zipped=False)
  manual = tmp_path / 'manual'
  (manual / 'cat').rename(tmp_path / 'elsewhere')
  (manual / 'cat').symlink_to(tmp_path / 'elsewhere')
  (manual / 'dog' / 'up').symlink_to(manual)
  (manual / 'a folder').symlink_to('/nowhere')
  lost = manual / 'dog' / 'cifar10_dog_1.aedat'
  lost.unlink()
  lost.symlink_to('/nowhere')
  lines = skipped('cifar10_dvs', tmp_path)
  assert len(lines) == 2
  assert all('it is a link that leads nowhere' in line for line in lines)
  (manual / 'dog.zip').symlink_to('/nowhere')
  with pytest.raises(UserError, match=r'dog\.zip is a link that leads nowhere'):
    convert('cifar10_dvs', tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every folder')
def test_folder_that_cannot_be_read(tmp_path):
  write_cifar(tmp_path, 1, zipped=False)
  (tmp_path / 'manual' / 'cat').chmod(0)
  with pytest.raises(UserError, match='cat cannot be read'):
    convert('cifar10_dvs', tmp_path)


def test_disk_without_room_for_an_archive(tmp_path, monkeypatch):
  write_gestures(tmp_path)
  size = (tmp_path / 'manual' / 'DvsGesture.tar.gz').stat().st_size
  usage = lambda folder: types.SimpleNamespace(free=2 * size - 1)
  monkeypatch.setattr(shutil, 'disk_usage', usage)
  with pytest.raises(UserError, match='GB to be extracted, but'):
    convert('dvs_gesture', tmp_path)


def test_fault_of_the_machine_skips_nothing(tmp_path, monkeypatch):
  write_cifar(tmp_path, 1, zipped=False)
  error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
  opened = lambda *a: (_ for _ in ()).throw(error)
  monkeypatch.setattr(archives, 'open', opened, raising=False)
  with pytest.raises(UserError, match=r'cannot be opened \(Too many'):
    convert('cifar10_dvs', tmp_path)
