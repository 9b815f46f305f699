"""A conversion that is stopped, however it is, continues and ends the same."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mlf_jax.data import FrameSpec, archives, io
from mlf_jax.data.events import conversion
from mlf_jax.errors import UserError
from tests.data import event_trees, recordings
from tests.data.preparing import (
  BY_LIST,
  GESTURES,
  SMALL,
  convert,
  load,
  prepare,
  write_cifar,
  write_gestures,
)
from tests.data.waiting import waiting_for_this

pytestmark = pytest.mark.filterwarnings('ignore:.*has MD5')


def read_shards(shards):
  """Records of all shards, in order."""
  records = []
  for path, _ in shards:
    reader = conversion.array_record_module.ArrayRecordReader(str(path))
    records += [bytes(record) for record in reader.read_all()]
    reader.close()
  return records


_KILLED = """
import os, signal, sys, pathlib
from tests.data import preparing
folder, serialize = pathlib.Path(sys.argv[1]), preparing.serialize
def serialize_and_die(sample):
  print('noise', flush=True)
  if len(list(folder.glob('work/*.json'))) >= 2:
    os.kill(os.getpid(), signal.SIGKILL)
  return serialize(sample)
preparing.serialize = serialize_and_die
preparing.convert(
  'cifar10_dvs', folder, processes=int(sys.argv[2]), unit_recordings=4
)
"""


@pytest.mark.parametrize('processes', ['1', '2'])
def test_killed_conversion_continues(tmp_path, processes):
  """Either the script is killed, which has no guard, or one of its workers."""
  write_cifar(tmp_path, 2)
  killed = subprocess.run(
    [sys.executable, '-c', _KILLED, tmp_path, processes],
    capture_output=True,
    text=True,
  )
  if processes == '1':
    assert killed.returncode == -signal.SIGKILL
  else:
    assert 'UserError: a process was killed' in killed.stderr.splitlines()[-1]
    assert killed.stdout == ''  # What workers print is no result.
  assert list(tmp_path.glob('work/*.part')), 'it was to be killed while writing'
  done = {
    path: path.stat().st_mtime_ns for path in tmp_path.glob('work/*.json')
  }
  assert len(done) >= 2
  resumed = convert('cifar10_dvs', tmp_path, unit_recordings=4)
  assert len(resumed[0]['train']) == 5
  assert not list(tmp_path.glob('work/*.part'))
  for path, written in done.items():
    assert path.stat().st_mtime_ns == written
  (tmp_path / 'work').rename(tmp_path / 'first')
  whole = convert('cifar10_dvs', tmp_path, unit_recordings=4)
  assert resumed == whole
  for path, _ in whole[0]['train']:
    assert (tmp_path / 'first' / path.name).read_bytes() == path.read_bytes()


_ORPHANING = """
import os, pathlib, signal, sys
from tests.data import preparing
folder, parent = pathlib.Path(sys.argv[1]), os.getpid()
serialize = preparing.serialize
def serialize_and_kill_the_parent(sample):
  if len(list(folder.glob('work/*.json'))) >= 2:
    os.kill(parent, signal.SIGKILL)
  return serialize(sample)
preparing.serialize = serialize_and_kill_the_parent
preparing.convert('cifar10_dvs', folder, processes=2, unit_recordings=4)
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
  write_cifar(tmp_path, 2)
  with subprocess.Popen(
    [sys.executable, '-c', _ORPHANING, tmp_path], start_new_session=True
  ) as parent:
    assert parent.wait(120) == -signal.SIGKILL
  deadline = time.monotonic() + 120
  with pytest.raises(ProcessLookupError):
    while time.monotonic() < deadline:
      os.killpg(parent.pid, 0)
      time.sleep(0.5)


@pytest.mark.parametrize('moment', ['link', 'info'])
def test_preparation_that_ends_while_it_finishes_continues(
  tmp_path, monkeypatch, moment
):
  """All units are converted, but the data set has not got its name."""
  import tensorflow_datasets as tfds

  write_cifar(tmp_path, 2)

  def interrupt(*unused_arguments, **unused):
    raise KeyboardInterrupt

  def refuse(*unused):
    raise OSError(95, 'Operation not supported')

  with monkeypatch.context() as patch:
    if moment == 'link':
      patch.setattr(os, 'link', interrupt)
    else:
      patch.setattr(tfds.core.DatasetInfo, 'write_to_directory', interrupt)
    with pytest.raises(KeyboardInterrupt):
      prepare('cifar10_dvs', tmp_path, processes=1)
  assert not list(tmp_path.rglob('dataset_info.json'))
  assert list(tmp_path.rglob('*.shard'))
  monkeypatch.setattr(conversion, 'convert_unit', None)  # There are none left.
  if moment == 'info':  # A file system without hard links.
    monkeypatch.setattr(os, 'link', refuse)
  assert prepare('cifar10_dvs', tmp_path, processes=1)[-1] == '0 skipped'
  assert not list(tmp_path.rglob('incomplete.*'))
  assert not list(tmp_path.rglob(archives.PREPARING))
  assert len(load('cifar10_dvs', tmp_path).train) == 10


def test_what_another_process_prepares_is_waited_for(tmp_path, monkeypatch):
  write_cifar(tmp_path, 1)
  described = prepare('cifar10_dvs', tmp_path, processes=1)
  folder = tmp_path / 'prepared' / 'cifar10_dvs' / SMALL.name
  (folder / '2.0.0').rename(tmp_path / 'first')
  # The second converts nothing.
  monkeypatch.setattr(conversion, 'convert', None)
  preparing = io.exclusive(folder / archives.PREPARING, '', '', '')
  preparing.__enter__()
  second = lambda: prepare('cifar10_dvs', tmp_path)
  with waiting_for_this(second) as results:
    (tmp_path / 'first').rename(folder / '2.0.0')
    preparing.__exit__(None, None, None)
  assert results == [described]
  assert [path.name for path in folder.iterdir()] == ['2.0.0']


def test_preparation_without_recordings_leaves_nothing(tmp_path):
  (tmp_path / 'manual').mkdir()
  with pytest.raises(UserError, match='holds no recordings'):
    prepare('cifar10_dvs', tmp_path)
  assert not list(tmp_path.rglob(archives.PREPARING))
  (tmp_path / 'manual').rmdir()
  write_cifar(tmp_path, 1)
  assert prepare('cifar10_dvs', tmp_path)[-1] == '0 skipped'


def test_shards_and_summary_add_up_all_units(tmp_path):
  """Some recordings have invalid events, and one is damaged."""
  listed = [(0, 1, 2, 0), (70_000, 1, 2, 1), (90_000, 3, 4, 1)]
  rows = b'class,startTime_usec,endTime_usec\n5,0,80000\n5,80000,99000\n'
  files = dict(GESTURES)
  for user in (1, 25, 26, 27):
    files[f'user{user:02d}_lab.aedat'] = recordings.aedat3(listed, invalid=[1])
    files[f'user{user:02d}_lab_labels.csv'] = rows
  files['user26_lab.aedat'] = b''
  write_gestures(tmp_path, files)
  spec = FrameSpec(4, 'window', 200_000, 8)
  shards, summary = convert('dvs_gesture', tmp_path, spec, unit_recordings=1)
  # The unit of the bad recording has no shard.
  assert [len(of_split) for of_split in shards.values()] == [4, 4]
  for split, of_split in shards.items():
    ids = [record.split()[0].decode() for record in read_shards(of_split)]
    assert ids == sorted(ids) and len(ids) == {'train': 35, 'test': 26}[split]
    assert sum(len(report.labels) for _, report in of_split) == len(ids)
    assert sum(summary['samples'][split].values()) == len(ids)
  assert summary['recordings'] == 9
  assert summary['events'] == 6606 and summary['dropped_events'] == 3
  assert summary['samples']['test']['right_arm_counter_clockwise'] == 6
  # 55 samples of 0.4 s and six of one event, in windows of 0.8 s together.
  share = (55 * 2 / 4 + 6 * 3 / 4) / 61
  assert summary['padded_share'] == pytest.approx(share)
  (skip,) = summary['skipped']
  assert skip['what'] == 'user26_lab'


def write_labels(manual):
  files = {
    name: content.replace(b'\n3,', b'\n4,')
    for name, content in GESTURES.items()
    if name.endswith('.csv')
  }
  event_trees.write_folder(manual / 'DvsGesture', files)


def write_lists(manual):
  lists = event_trees.trial_lists(GESTURES, BY_LIST)
  event_trees.write_folder(manual / 'DvsGesture', lists)


@pytest.mark.parametrize(
  'change',
  [
    lambda manual: {'backwards': 'sort'},
    lambda manual: {'spec': FrameSpec(5, 'window', 60_000, 16.0)},
    write_lists,
    write_labels,
  ],
)
def test_units_are_used_again_only_if_nothing_has_changed(tmp_path, change):
  write_gestures(tmp_path, archive=False)

  def paths(**options):
    shards, _ = convert('dvs_gesture', tmp_path, **options)
    return [path for of_split in shards.values() for path, _ in of_split]

  first = paths()
  written = [path.stat().st_mtime_ns for path in first]
  assert [path.stat().st_mtime_ns for path in paths()] == written
  changed = paths(**(change(tmp_path / 'manual') or {}))
  assert not set(changed) & set(first)
  assert not any(path.exists() for path in first)


def test_size_of_units_and_samples_is_limited(tmp_path):
  write_cifar(tmp_path, 1)
  # Frames of 40 kB: five recordings per unit, then one.
  spec = FrameSpec(5, 'window', 60_000, 2.0)
  for unit_bytes, number in ((5 * 40_960, 2), (1, 10)):
    shards, _ = convert('cifar10_dvs', tmp_path, spec, unit_bytes=unit_bytes)
    assert len(shards['train']) == number
  with pytest.raises(UserError, match=r'one sample would take 3\.3 GB'):
    convert('cifar10_dvs', tmp_path, FrameSpec(100_000, 'window', 10, 1.0))


def test_several_processes_prepare_the_same_as_one(tmp_path):
  """Builders send their serialiser to the workers, one for each split here."""
  write_gestures(tmp_path)
  lines = prepare('dvs_gesture', tmp_path, processes=1)
  alone = load('dvs_gesture', tmp_path).test
  (tmp_path / 'prepared').rename(tmp_path / 'first')
  assert prepare('dvs_gesture', tmp_path, processes=2) == lines
  together = load('dvs_gesture', tmp_path).test
  assert together.split_hash == alone.split_hash
  np.testing.assert_array_equal(together.images, alone.images)
