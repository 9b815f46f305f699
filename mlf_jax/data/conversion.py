"""Recordings to frames, in several processes, and not twice.

Recordings are divided into units. The frames of a unit go into one file, which
takes its name once it is whole: a conversion that was killed goes on with the
units that are missing.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import rich.console
import rich.progress

from mlf_jax.data import recordings as recordings_lib
from mlf_jax.data import workers
from mlf_jax.data.event_archives import Member
from mlf_jax.data.event_sets import EVENT_SETS, EventSet, Found, Recording, Skip
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError

_VERSION = importlib.metadata.version('mlf_jax')

# A unit is the work of some seconds: little is lost with it, and a few hundred
# files are no burden. Bytes are those of its files or of its frames, whichever
# are more, since it is held in memory.
_UNIT_BYTES = 100_000_000
_UNIT_RECORDINGS = 500
_MAX_SAMPLE_BYTES = 1 << 30
# Of a unit's file, besides `split`, one entry a sample.
_COLUMNS = ('id', 'frames', 'label', 'events', 'padded_share')

# What a summary tells.
SUMMARY = (
  'mlf_jax',
  'frames',
  'backwards',
  'split_rule',
  'recordings',
  'published_recordings',
  'samples',
  'events',
  'dropped_events',
  'padded_share',
  'skipped',
)


@dataclasses.dataclass(frozen=True)
class Task:
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
    found: the recordings, and what was left out before any was opened.
  """

  event_set: EventSet
  spec: FrameSpec
  backwards: str
  paths: tuple[pathlib.Path, ...]
  found: Found

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
        members = np.flatnonzero(unit['split'] == split)
        if not members.size:  # Its frames need not be decompressed.
          continue
        columns = {name: unit[name] for name in _COLUMNS}
      for i in members:
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
    skips = [dataclasses.asdict(skip) for skip in self.found.skips]
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
    values = (
      _VERSION,
      dataclasses.asdict(self.spec),
      self.backwards,
      self.found.split_rule,
      len(self.found.recordings),
      self.event_set.published,
      per_class,
      events,
      dropped,
      float(np.mean(padded)),
      skips,
    )
    return dict(zip(SUMMARY, values, strict=True))


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
    manual_dir: see `recordings.find`.
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
  sample_bytes = int(np.prod(spec.shape(event_set.sensor_size), dtype=object))
  if sample_bytes > _MAX_SAMPLE_BYTES:
    raise UserError(
      f'the frames of one sample would take {sample_bytes / 1e9:.1f} GB: fewer '
      'timesteps, or a larger downsample, are needed'
    )
  found = recordings_lib.find(event_set, manual_dir, work / 'extracted')
  key = _key(event_set, found, spec, backwards)
  # What another conversion, or a killed one, left behind.
  for path in work.glob('*.npz*'):
    if not re.fullmatch(rf'{key}-\d+\.npz', path.name):
      path.unlink()
  tasks = [
    Task(event_set.name, unit, spec, backwards, work / f'{key}-{i:05d}.npz')
    for i, unit in enumerate(_units(event_set, found.recordings, sample_bytes))
  ]
  _run(
    [task for task in tasks if not task.path.exists()],
    len(found.recordings),
    processes or os.cpu_count(),
  )
  paths = tuple(task.path for task in tasks)
  return Conversion(event_set, spec, backwards, paths, found)


def _units(
  event_set: EventSet, recordings: list[Recording], sample_bytes: int
) -> Iterator[tuple[Recording, ...]]:
  unit, size = [], 0
  for recording in recordings:
    unit.append(recording)
    # More or less: a recording in parts has one of each class.
    samples = 1 if recording.intervals is None else len(event_set.classes)
    size += max(recording.file.size, samples * sample_bytes)
    if size >= _UNIT_BYTES or len(unit) == _UNIT_RECORDINGS:
      yield tuple(unit)
      unit, size = [], 0
  if unit:
    yield tuple(unit)


def _key(
  event_set: EventSet, found: Found, spec: FrameSpec, backwards: str
) -> str:
  """Tells conversions apart whose units would differ."""
  files = [
    (r.id, r.split, r.label, *(_stamp(m) for m in (r.file, r.intervals) if m))
    for r in found.recordings
  ]
  text = json.dumps([_VERSION, event_set.name, spec.name, backwards, files])
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(member: Member) -> tuple[int, int]:
  return member.size, member.stamp


def _run(tasks: list[Task], total: int, processes: int) -> None:
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
    for task in workers.run(convert_unit, tasks, processes):
      progress.advance(bar, len(task.recordings))


def convert_unit(task: Task) -> None:
  """Converts the recordings of one unit and writes them, all or nothing.

  Raises:
    UserError: its file cannot be written, or no more files be opened.
  """
  event_set = EVENT_SETS[task.event_set]
  rows, skips, dropped = [], [], 0
  for recording in task.recordings:
    try:
      samples, left_out, drops = recordings_lib.read(
        event_set, recording, task.backwards
      )
    except UserError as error:
      skips.append(Skip(recording.id, str(error)))
      continue
    except OSError as error:
      raise UserError(
        f'{recording.file} cannot be opened ({error.strerror})'
      ) from None
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
  # Of its own name: one whose parent was killed may still be at the same unit.
  part = task.path.with_name(f'{task.path.name}.{os.getpid()}.part')
  try:
    with part.open('wb') as file:
      np.savez_compressed(
        file,
        id=np.array(ids, str),
        split=np.array(splits, str),
        frames=np.stack(frames) if frames else np.empty((0, *shape), np.uint8),
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
