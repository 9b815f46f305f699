"""Recordings to frames, in several processes, and not twice.

Recordings are divided into units. The frames of a unit go into one file, which
takes its name once it is whole: a conversion that was killed goes on with the
units that are missing.
"""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import signal
import threading
from collections.abc import Iterator

import numpy as np
import rich.console
import rich.progress

from mlf_jax.data import event_sets
from mlf_jax.data.event_archives import Member
from mlf_jax.data.event_sets import EventSet, Recording, Skip
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError

# A unit is the work of some seconds: little is lost with it, and a few hundred
# files are no burden.
_UNIT_BYTES = 100_000_000
_UNIT_RECORDINGS = 500
# Of a unit's file, one entry a sample.
_COLUMNS = ('id', 'split', 'frames', 'label', 'events', 'padded_share')


@dataclasses.dataclass(frozen=True)
class _Task:
  """All that a process needs to convert one unit."""

  event_set: str
  recordings: tuple[Recording, ...]
  spec: FrameSpec
  backwards: str
  path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Conversion:
  """Converted recordings on disk.

  Attributes:
    event_set: the data set.
    spec: how the frames were made.
    backwards: what was done where time goes back in a recording.
    paths: the files of the units.
    skips: what was left out before any recording was opened.
    num_recordings: number of recordings that were found.
  """

  event_set: EventSet
  spec: FrameSpec
  backwards: str
  paths: tuple[pathlib.Path, ...]
  skips: tuple[Skip, ...]
  num_recordings: int

  def samples(self, split: str) -> Iterator[dict]:
    """Yields the samples of a split.

    Yields:
      id: name of the sample.
      frames: uint8 [time, height, width, 2].
      label: class.
      events: number of events of the sample, in frames or not.
      padded_share: see `FrameSpec.padded_share`.
    """
    for path in self.paths:
      with np.load(path) as unit:
        columns = {name: unit[name] for name in _COLUMNS}
      for i in np.flatnonzero(columns['split'] == split):
        yield {
          'id': str(columns['id'][i]),
          'frames': columns['frames'][i],
          'label': int(columns['label'][i]),
          'events': int(columns['events'][i]),
          'padded_share': float(columns['padded_share'][i]),
        }

  def summary(self) -> dict:
    """What was found, how it was converted and what was left out.

    Raises:
      UserError: no sample is left in a split.
    """
    per_class = {
      split: dict.fromkeys(self.event_set.classes, 0)
      for split in self.event_set.splits
    }
    skips = [dataclasses.asdict(skip) for skip in self.skips]
    events = dropped = 0
    padded = []
    for path in self.paths:
      with np.load(path) as unit:
        for split, label in zip(unit['split'], unit['label'], strict=True):
          per_class[split][self.event_set.classes[label]] += 1
        skips += json.loads(str(unit['skips']))
        events += int(unit['events'].sum())
        dropped += int(unit['dropped'])
        padded += unit['padded_share'].tolist()
    for split, counts in per_class.items():
      if not any(counts.values()):
        reasons = [f'{skip["what"]}: {skip["reason"]}' for skip in skips]
        raise UserError(
          f'no {split} sample of {self.event_set.name} is left. '
          f'{len(skips)} skipped, the first: {"; ".join(reasons[:3])}'
        )
    return {
      'frames': dataclasses.asdict(self.spec),
      'backwards': self.backwards,
      'recordings': self.num_recordings,
      'samples': per_class,
      'events': events,
      'dropped_events': dropped,
      'padded_share': float(np.mean(padded)),
      'skipped': skips,
    }


def convert(
  event_set: EventSet,
  manual_dir: str,
  spec: FrameSpec,
  work: pathlib.Path,
  backwards: str = 'error',
  processes: int | None = None,
) -> Conversion:
  """Converts the recordings of a data set; goes on where it was stopped.

  Args:
    event_set: the data set.
    manual_dir: see `event_sets.find_recordings`.
    spec: how to make frames.
    work: existing folder for the units, of no other process.
    backwards: see `event_files.read_aedat`; with 'error' such a recording is
      skipped.
    processes: how many work at once; None is one a CPU core.

  Returns:
    The converted recordings. A recording that cannot be read is left out, and
    the summary says why.

  Raises:
    UserError: no recordings, or no room for the frames.
  """
  recordings, skips = event_sets.find_recordings(
    event_set, manual_dir, work / 'extracted'
  )
  key = _key(event_set, recordings, spec, backwards)
  # What another conversion, or a killed one, left behind.
  for path in work.glob('*.npz*'):
    if not re.fullmatch(rf'{key}-\d+\.npz', path.name):
      path.unlink()
  tasks = [
    _Task(event_set.name, unit, spec, backwards, work / f'{key}-{i:05d}.npz')
    for i, unit in enumerate(_units(recordings))
  ]
  _run(
    [task for task in tasks if not task.path.exists()],
    len(recordings),
    processes or os.cpu_count(),
  )
  return Conversion(
    event_set,
    spec,
    backwards,
    tuple(task.path for task in tasks),
    tuple(skips),
    len(recordings),
  )


def _units(recordings: list[Recording]) -> Iterator[tuple[Recording, ...]]:
  unit, size = [], 0
  for recording in recordings:
    unit.append(recording)
    size += recording.file.size
    if size >= _UNIT_BYTES or len(unit) == _UNIT_RECORDINGS:
      yield tuple(unit)
      unit, size = [], 0
  if unit:
    yield tuple(unit)


def _key(event_set, recordings, spec, backwards) -> str:
  """Tells conversions apart whose units would differ."""
  files = [
    (r.id, r.split, r.label, *(_stamp(m) for m in (r.file, r.intervals) if m))
    for r in recordings
  ]
  text = json.dumps([event_set.name, spec.name, backwards, files])
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(member: Member) -> tuple[int, int]:
  return member.size, member.stamp


def _run(tasks: list[_Task], total: int, processes: int) -> None:
  """Converts units, with a progress line."""
  left = sum(len(task.recordings) for task in tasks)
  columns = (
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
  )
  with rich.progress.Progress(
    *columns, console=rich.console.Console(stderr=True)
  ) as progress:
    bar = progress.add_task(
      'Converting recordings', total=total, completed=total - left
    )
    for task in _converted(tasks, min(processes, len(tasks))):
      progress.advance(bar, len(task.recordings))


def _converted(tasks: list[_Task], processes: int) -> Iterator[_Task]:
  """Yields the units as they are done."""
  # Starting a process takes longer than the work of a small data set.
  if processes < 2:
    for task in tasks:
      _convert_unit(task)
      yield task
    return
  # Not forked: JAX has threads, whose locks a copy would keep for ever.
  executor = concurrent.futures.ProcessPoolExecutor(
    processes,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_prepare_worker,
  )
  try:
    futures = {executor.submit(_convert_unit, task): task for task in tasks}
    for future in concurrent.futures.as_completed(futures):
      future.result()
      yield futures[future]
  except concurrent.futures.process.BrokenProcessPool as error:
    raise UserError(
      'a process that converts recordings was killed, for want of memory '
      'perhaps: the same command goes on; `python -m mlf_jax prepare` takes '
      '--processes=1'
    ) from error
  finally:
    executor.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
  """Makes a worker stop with its parent, however that one ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _convert_unit(task: _Task) -> None:
  """Converts the recordings of one unit and writes them, all or nothing."""
  event_set = event_sets.EVENT_SETS[task.event_set]
  rows, skips, dropped = [], [], 0
  for recording in task.recordings:
    try:
      samples, left_out, drops = event_sets.read(
        event_set, recording, task.backwards
      )
    except UserError as error:
      skips.append(Skip(recording.id, str(error)))
      continue
    skips += left_out
    dropped += drops
    rows += [
      (
        sample.id,
        recording.split,
        task.spec.frames(sample.events),
        sample.label,
        len(sample.events),
        task.spec.padded_share(sample.events),
      )
      for sample in samples
    ]
  shape = task.spec.shape(event_set.sensor_size)
  ids, splits, frames, labels, events, padded = (
    [row[i] for row in rows] for i in range(6)
  )
  part = task.path.with_name(f'{task.path.name}.part')
  try:
    with part.open('wb') as file:
      np.savez_compressed(
        file,
        id=np.array(ids, str),
        split=np.array(splits, str),
        # Of no samples the shape would not be known.
        frames=np.reshape(frames, (-1, *shape)).astype(np.uint8),
        label=np.array(labels, np.int64),
        events=np.array(events, np.int64),
        padded_share=np.array(padded, np.float64),
        skips=json.dumps([dataclasses.asdict(skip) for skip in skips]),
        dropped=dropped,
      )
      file.flush()
      os.fsync(file.fileno())
    part.replace(task.path)
  except OSError as error:
    raise UserError(
      f'{task.path} cannot be written ({error.strerror})'
    ) from None
