"""Recordings to shards of frames, in several processes, each written once.

Recordings are divided into units of one split each. A worker converts a unit
and writes its samples to one ArrayRecord file, the final shard of the data set,
and then a report. Both take their names when they are whole: a conversion that
was killed continues with the units that lack a report.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

import joblib
import numpy as np
import rich.console
import rich.progress
from array_record.python import array_record_module

from mlf_jax.data import io
from mlf_jax.data.events import recordings as recordings_lib
from mlf_jax.data.events.catalogue import EventSet, Recording, Skip
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.errors import UserError

_VERSION = importlib.metadata.version('mlf_jax')

# A unit is small, so that little is lost when it is stopped, and makes
# a shard of a size that reads well. Bytes are those of its files or its frames,
# whichever are more.
_UNIT_BYTES = 100_000_000
_UNIT_RECORDINGS = 500
_MAX_SAMPLE_BYTES = 1 << 30
# Processes without work end after this many seconds.
_IDLE_S = 5


@dataclasses.dataclass(frozen=True)
class Task:
  """All that a process needs to convert one unit.

  Attributes:
    event_set: the data set.
    split: split of the recordings.
    recordings: the recordings, in order.
    spec: how to make frames.
    backwards: see `formats.read_aedat`.
    serialize: a sample to the bytes of a record.
    shard: the file for the samples.
    report: the file for the report, which marks the unit as done.
  """

  event_set: EventSet
  split: str
  recordings: tuple[Recording, ...]
  spec: FrameSpec
  backwards: str
  serialize: Callable[[dict], bytes]
  shard: pathlib.Path
  report: pathlib.Path


# What the summary of a conversion holds.
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


@dataclasses.dataclass
class Report:
  """Result of converting a unit, besides its samples.

  Attributes:
    labels: class of each sample.
    padded_shares: `FrameSpec.padded_share` of each sample.
    events: number of events of the samples, in frames or not.
    dropped: number of events that their files mark as invalid or special.
    record_bytes: bytes of the serialised samples.
    skips: recordings and parts that were left out, as dictionaries of `Skip`.
  """

  labels: list[int] = dataclasses.field(default_factory=list)
  padded_shares: list[float] = dataclasses.field(default_factory=list)
  events: int = 0
  dropped: int = 0
  record_bytes: int = 0
  skips: list[dict] = dataclasses.field(default_factory=list)


def convert(
  event_set: EventSet,
  manual_dir: str,
  spec: FrameSpec,
  work: pathlib.Path,
  serialize: Callable[[dict], bytes],
  backwards: str = 'error',
  processes: int | None = None,
  *,
  unit_recordings: int = _UNIT_RECORDINGS,
  unit_bytes: int = _UNIT_BYTES,
) -> tuple[dict[str, list[tuple[pathlib.Path, Report]]], dict]:
  """Converts the recordings of a data set; continues where it was stopped.

  A sample has `id`, `frames` (uint8 [time, height, width, 2]), `label`,
  `events` (number of events, in frames or not) and `padded_share`.

  Args:
    event_set: the data set.
    manual_dir: see `recordings.find_recordings`.
    spec: how to make frames.
    work: existing folder for the shards, reserved for this process.
    serialize: a sample to the bytes of a record; picklable.
    backwards: see `formats.read_aedat`; with 'error' such a recording is
      skipped.
    processes: number of processes; None is one per CPU core, or none besides
      this one where all recordings fit into one unit.
    unit_recordings: most recordings in a unit.
    unit_bytes: bytes of recordings or frames at which a unit ends.

  Returns:
    The shards of each split and their reports, with the samples in the order of
    the recordings, and a summary of what was converted, how, and what was left
    out and why.

  Raises:
    UserError: there are no recordings, no room for the frames, or a split
      without any sample.
  """
  sample_bytes = int(np.prod(spec.shape(event_set.sensor_size), dtype=object))
  if sample_bytes > _MAX_SAMPLE_BYTES:
    raise UserError(
      f'the frames of one sample would take {sample_bytes / 1e9:.1f} GB: fewer '
      'timesteps, or a larger downsample, are needed'
    )
  found = recordings_lib.find_recordings(
    event_set, manual_dir, work / 'extracted'
  )
  key = _key(
    _VERSION,
    event_set.name,
    event_set.version,
    spec.name,
    backwards,
    (unit_recordings, unit_bytes),
    [
      (
        r.id,
        r.split,
        r.label,
        *((m.size, m.stamp) for m in (r.file, r.intervals) if m),
      )
      for r in found.recordings
    ],
  )
  # Files that another conversion, or one that was killed, left behind.
  for path in work.glob('*-*'):
    if not re.fullmatch(rf'{key}-\d+\.(shard|json)', path.name):
      path.unlink(missing_ok=True)
  units = _units(
    event_set, found.recordings, sample_bytes, unit_recordings, unit_bytes
  )
  tasks = [
    Task(
      event_set=event_set,
      split=split,
      recordings=unit,
      spec=spec,
      backwards=backwards,
      serialize=serialize,
      shard=work / f'{key}-{i:05d}.shard',
      report=work / f'{key}-{i:05d}.json',
    )
    for i, (split, unit) in enumerate(units)
  ]
  todo = [t for t in tasks if not (t.report.exists() and t.shard.exists())]
  if processes is None:
    # To start processes takes as long as the work of a unit.
    left = [recording for task in todo for recording in task.recordings]
    little = sum(recording.file.size for recording in left) < unit_bytes
    is_one_enough = little and len(left) < unit_recordings
    processes = 1 if is_one_enough else os.cpu_count()
  _convert_units(todo, len(found.recordings), processes)
  reports = [Report(**json.loads(task.report.read_bytes())) for task in tasks]
  shards = {
    split: [
      (task.shard, report)
      for task, report in zip(tasks, reports, strict=True)
      if task.split == split and report.labels
    ]
    for split in event_set.splits
  }
  return shards, _summary(event_set, spec, backwards, found, tasks, reports)


def _units(
  event_set, recordings, sample_bytes, unit_recordings, unit_bytes
) -> Iterator[tuple[str, tuple[Recording, ...]]]:
  """Yields the split and the recordings of each unit."""
  for split in event_set.splits:
    unit, size = [], 0
    for recording in recordings:
      if recording.split != split:
        continue
      unit.append(recording)
      # An estimate: a recording in parts has about one of each class.
      samples = 1 if recording.intervals is None else len(event_set.classes)
      size += max(recording.file.size, samples * sample_bytes)
      if size >= unit_bytes or len(unit) == unit_recordings:
        yield split, tuple(unit)
        unit, size = [], 0
    if unit:
      yield split, tuple(unit)


def _key(*parts) -> str:
  """Names a conversion by what decides the content of its units."""
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _convert_units(tasks: list[Task], total: int, processes: int) -> None:
  """Converts units, with a progress line.

  Unlike those of `multiprocessing`, joblib's processes do not run the user's
  script again. If this process is killed, they finish their unit and end.

  Raises:
    UserError: a unit cannot be converted, or its process was killed.
  """
  parallel = joblib.Parallel(
    n_jobs=min(processes, len(tasks)) or 1,
    backend='loky',
    return_as='generator_unordered',
    batch_size=1,
    pre_dispatch='n_jobs',
    initializer=_set_up_worker,
    idle_worker_timeout=_IDLE_S,
  )
  try:
    left = sum(len(task.recordings) for task in tasks)
    with rich.progress.Progress(
      *rich.progress.Progress.get_default_columns(),
      rich.progress.MofNCompleteColumn(),
      console=rich.console.Console(stderr=True),
    ) as progress:
      bar = progress.add_task(
        'Converting recordings', total=total, completed=total - left
      )
      for converted in parallel(
        joblib.delayed(convert_unit)(task) for task in tasks
      ):
        progress.advance(bar, converted)
  except BrokenProcessPool:
    raise UserError(
      'a process was killed, for want of memory perhaps: the same command '
      'goes on where it was'
    ) from None


def _set_up_worker() -> None:
  """Leaves Ctrl-C and standard output to the process that started this one."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def convert_unit(task: Task) -> int:
  """Converts the recordings of one unit and writes its shard and its report.

  Returns:
    The number of recordings.

  Raises:
    UserError: a file cannot be written, or no more files be opened.
  """
  report = Report()

  def write_shard(path):
    # One record per group, as TensorFlow Datasets writes, for random access.
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    for record in _serialized_samples(task, report):
      writer.write(record)
    writer.close()

  try:
    io.write_atomically(task.shard, write_shard)
    content = json.dumps(dataclasses.asdict(report)).encode()
    io.write_atomically(task.report, content)
  # The writer of ArrayRecord raises RuntimeError, for instance on a full disk.
  except (OSError, RuntimeError) as error:
    reason = ' '.join(str(getattr(error, 'strerror', None) or error).split())
    raise UserError(f'{task.shard} cannot be written ({reason})') from None
  return len(task.recordings)


def _serialized_samples(task: Task, report: Report) -> Iterator[bytes]:
  """Yields the records of a unit and notes them in the report."""
  for recording in task.recordings:
    try:
      samples, skips, dropped = recordings_lib.read_samples(
        task.event_set, recording, task.backwards
      )
    except UserError as error:
      samples, skips, dropped = [], [Skip(recording.id, str(error))], 0
    except OSError as error:
      raise UserError(
        f'{recording.file} cannot be opened ({error.strerror})'
      ) from None
    report.skips += [dataclasses.asdict(skip) for skip in skips]
    report.dropped += dropped
    for sample in samples:
      padded_share = task.spec.padded_share(sample.events)
      record = task.serialize(
        {
          'id': sample.id,
          'frames': task.spec.frames(sample.events),
          'label': sample.label,
          'events': len(sample.events),
          'padded_share': padded_share,
        }
      )
      report.labels.append(sample.label)
      report.padded_shares.append(padded_share)
      report.events += len(sample.events)
      report.record_bytes += len(record)
      yield record


def _summary(event_set, spec, backwards, found, tasks, reports) -> dict:
  """Summarises the recordings, their frames and what was left out.

  Raises:
    UserError: a split has no sample.
  """
  per_class = {
    split: dict.fromkeys(event_set.classes, 0) for split in event_set.splits
  }
  skips = [dataclasses.asdict(skip) for skip in found.skips]
  for task, report in zip(tasks, reports, strict=True):
    for label in report.labels:
      per_class[task.split][event_set.classes[label]] += 1
    skips += report.skips
  for split, counts in per_class.items():
    if not any(counts.values()):
      reasons = [f'{skip["what"]}: {skip["reason"]}' for skip in skips]
      raise UserError(
        f'no {split} sample of {event_set.name} is left. '
        f'{len(skips)} skipped, the first: {"; ".join(reasons[:3])}'
      )
  padded_shares = [share for r in reports for share in r.padded_shares]
  values = (
    _VERSION,
    dataclasses.asdict(spec),
    backwards,
    found.split_rule,
    len(found.recordings),
    event_set.published,
    per_class,
    sum(report.events for report in reports),
    sum(report.dropped for report in reports),
    float(np.mean(padded_shares)),
    skips,
  )
  return dict(zip(SUMMARY, values, strict=True))
