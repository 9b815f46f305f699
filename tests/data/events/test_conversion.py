"""A preparation that is stopped, however it is, goes on and ends the same."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from mlf_jax.data.frames import FrameSpec

from mlf_jax import UserError, locks
from mlf_jax.data import conversion, event_archives, event_sets
from tests.data import event_trees, recordings
from tests.data.preparing import (
  BY_LIST,
  GESTURES,
  SMALL,
  USERS,
  load,
  prepare,
  write_cifar,
  write_gestures,
)

# Each of these kills the process in the midst of something.
_KILLS = {
  'between units': """
convert, done = conversion.convert_unit, []
def convert_and_die(task):
  convert(task)
  done.append(task)
  if len(done) == 2:
    die()
conversion.convert_unit = convert_and_die
""",
  'within a unit': """
def save_and_die(file, **columns):
  if len(list(pathlib.Path(sys.argv[1]).rglob('*.npz'))) == 2:
    file.write(b'half')
    file.flush()
    die()
  save(file, **columns)
save, np.savez_compressed = np.savez_compressed, save_and_die
""",
  'within the data set': """
def samples_and_die(self, split):
  yield from itertools.islice(samples(self, split), 3)
  die()
samples = conversion.Conversion.samples
conversion.Conversion.samples = samples_and_die
""",
}
_PREPARE = """
import itertools, os, pathlib, signal, sys
import numpy as np
from mlf_jax.data import conversion, prepared
from mlf_jax.data.frames import FrameSpec
conversion._UNIT_RECORDINGS = 4
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
{}
frames = FrameSpec(5, 'window', 70_000, 16.0)
prepared.prepare('cifar10_dvs', frames, *sys.argv[1:], processes=1)
"""


@pytest.mark.parametrize(
  ('moment', 'left'),
  [('between units', 3), ('within a unit', 3), ('within the data set', 0)],
)
def test_killed_preparation_goes_on(tmp_path, monkeypatch, moment, left):
  write_cifar(tmp_path, 2)
  folders = [str(tmp_path / 'prepared'), str(tmp_path / 'manual')]
  killed = subprocess.run(
    [sys.executable, '-c', _PREPARE.format(_KILLS[moment]), *folders],
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL
  assert not list(tmp_path.rglob('dataset_info.json'))
  monkeypatch.setattr(conversion, '_UNIT_RECORDINGS', 4)
  converted = []
  convert = conversion.convert_unit
  monkeypatch.setattr(
    conversion, 'convert_unit', lambda t: (converted.append(t), convert(t))
  )
  prepare('cifar10_dvs', tmp_path, processes=1)
  assert len(converted) == left  # Of five.
  assert not list(tmp_path.rglob('incomplete.*'))
  assert not list(tmp_path.rglob(event_archives.PREPARING))
  resumed = load('cifar10_dvs', 'train', tmp_path)
  # The same as a preparation in one go.
  (tmp_path / 'prepared').rename(tmp_path / 'first')
  prepare('cifar10_dvs', tmp_path, processes=1)
  whole = load('cifar10_dvs', 'train', tmp_path)
  np.testing.assert_array_equal(resumed.images, whole.images)
  assert resumed.split_hash == whole.split_hash


def test_killed_extraction_goes_on(tmp_path, monkeypatch):
  path = tmp_path / 'DvsGesture.tar.gz'
  event_trees.write_tar(path, GESTURES)
  copy, copied = shutil.copyfileobj, []

  def copy_half(source, target):
    if len(copied) == 3:
      target.write(source.read(100))
      raise KeyboardInterrupt
    copied.append(target.name)
    copy(source, target)

  monkeypatch.setattr(shutil, 'copyfileobj', copy_half)
  extract = lambda: event_archives.extract(
    path, tmp_path / 'to', lambda name: True
  )
  with pytest.raises(KeyboardInterrupt):
    extract()
  monkeypatch.setattr(
    shutil, 'copyfileobj', lambda s, t: (copied.append(t.name), copy(s, t))
  )
  files = extract()
  assert len(copied) == len(set(copied)) == len(GESTURES)
  for name, content in GESTURES.items():
    assert (files / name).read_bytes() == content
  path.unlink()
  event_trees.write_folder(tmp_path, {path.name: b''})
  os.utime(path, ns=(0, 0))
  with pytest.raises(UserError):  # Of another archive nothing is left.
    extract()


def test_one_process_at_a_time_prepares(tmp_path):
  write_cifar(tmp_path, 1)
  folder = tmp_path / 'prepared' / 'cifar10_dvs' / SMALL.name
  with (
    locks.exclusive(folder / event_archives.PREPARING, '', '', ''),
    pytest.raises(UserError, match='another process prepares data in'),
  ):
    prepare('cifar10_dvs', tmp_path)
  # The other one's folder is still there.
  assert (folder / event_archives.PREPARING / '.lock').exists()
  assert prepare('cifar10_dvs', tmp_path)[-1] == '0 skipped'


def test_nothing_is_left_of_a_preparation_without_recordings(tmp_path):
  (tmp_path / 'manual').mkdir()
  with pytest.raises(UserError):
    prepare('cifar10_dvs', tmp_path)
  assert not list(tmp_path.rglob(event_archives.PREPARING))


def test_summary_adds_up_all_units(tmp_path, monkeypatch):
  """Some recordings in the middle of units have invalid events, one is bad."""
  monkeypatch.setattr(conversion, '_UNIT_RECORDINGS', 4)
  listed = [(0, 1, 2, 0), (70_000, 1, 2, 1), (90_000, 3, 4, 1)]
  rows = b'class,startTime_usec,endTime_usec\n5,0,80000\n5,80000,99000\n'
  files = dict(GESTURES)
  for user in (1, 25, 26, 27):
    files[f'user{user:02d}_lab.aedat'] = recordings.aedat3(listed, invalid=[1])
    files[f'user{user:02d}_lab_labels.csv'] = rows
  files['user26_lab.aedat'] = b''
  write_gestures(tmp_path, files)
  with pytest.warns(UserWarning, match='1 skipped'):
    lines = prepare('dvs_gesture', tmp_path, FrameSpec(4, 'window', 200_000, 8))
  text = '\n'.join(lines)
  assert '9 recordings, 6,606 events in samples' in text
  assert lines[8].split() == ['right_arm_counter_clockwise', '5', '6']
  assert lines[15].split() == ['samples', '35', '26']
  # 55 samples of 0.4 s and six of one event, in windows of 0.8 s together.
  share = (55 * 2 / 4 + 6 * 3 / 4) / 61
  assert f'{share:.1%} of the frames' in text
  assert '3 events dropped' in text
  assert '1 skipped' in text and 'user26_lab' in lines[-1]


@pytest.mark.parametrize(
  'change',
  [
    lambda manual: {'backwards': 'sort'},
    lambda manual: {'spec': FrameSpec(5, 'window', 60_000, 16.0)},
    lambda manual: event_trees.write_folder(
      manual / 'DvsGesture', event_trees.trial_lists(GESTURES, BY_LIST)
    ),
    lambda manual: event_trees.write_folder(
      manual / 'DvsGesture',
      {
        name: content.replace(b'\n3,', b'\n4,')
        for name, content in GESTURES.items()
        if name.endswith('.csv')
      },
    ),
  ],
)
def test_units_are_taken_only_where_nothing_has_changed(tmp_path, change):
  write_gestures(tmp_path, archive=False)
  work = tmp_path / 'work'
  work.mkdir()

  def convert(spec=SMALL, **kwargs):
    return conversion.convert(
      event_sets.EVENT_SETS['dvs_gesture'],
      str(tmp_path / 'manual'),
      spec,
      work,
      processes=1,
      **kwargs,
    )

  first = convert()
  written = [path.stat().st_mtime_ns for path in first.paths]
  again = convert()
  assert [path.stat().st_mtime_ns for path in again.paths] == written
  changed = convert(**(change(tmp_path / 'manual') or {}))
  assert not set(changed.paths) & set(first.paths)
  assert not any(path.exists() for path in first.paths)


def test_a_unit_fits_the_memory(monkeypatch, tmp_path):
  write_cifar(tmp_path, 1)
  work = tmp_path / 'work'
  work.mkdir()

  def convert(spec):
    return conversion.convert(
      event_sets.EVENT_SETS['cifar10_dvs'],
      str(tmp_path / 'manual'),
      spec,
      work,
      processes=1,
    )

  # Frames of 40 kB: five recordings a unit, then one.
  spec = FrameSpec(5, 'window', 60_000, 2.0)
  monkeypatch.setattr(conversion, '_UNIT_BYTES', 5 * 40_960)
  assert len(convert(spec).paths) == 2
  monkeypatch.setattr(conversion, '_UNIT_BYTES', 1)
  assert len(convert(spec).paths) == 10
  with pytest.raises(UserError, match=r'one sample would take 3\.3 GB'):
    convert(FrameSpec(100_000, 'window', 10, 1.0))


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
    converted = list(converted.samples('test'))
    assert len(converted) == 22
    for sample in converted:
      label, events = samples[sample['id']]
      assert sample['label'] == label
      np.testing.assert_array_equal(
        sample['frames'],
        event_trees.frames_by_loop(events, 5, 70_000, 16, 128),
      )


_SCRIPT = """
import sys
from mlf_jax import data
from mlf_jax.data import conversion
from mlf_jax.data.frames import FrameSpec
# No guard around it, as in a notebook.
conversion._UNIT_RECORDINGS = 2
frames = FrameSpec(5, 'window', 70_000, 16.0)
print(len(data.load('cifar10_dvs', 'train', data_dir=sys.argv[1],
                    manual_dir=sys.argv[2], frames=frames)))
"""


def test_a_plain_script_prepares_in_several_processes(tmp_path):
  write_cifar(tmp_path, 2)
  script = tmp_path / 'script.py'
  script.write_text(_SCRIPT)
  run = subprocess.run(
    [sys.executable, script, tmp_path / 'prepared', tmp_path / 'manual'],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout == '10\n'
