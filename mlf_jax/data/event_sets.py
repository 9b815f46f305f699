"""The published event-camera data sets: what their files are called and mean.

Sources: A. Amir et al., "A Low Power, Fully Event-Based Gesture Recognition
System", CVPR 2017; H. Li et al., "CIFAR10-DVS: An Event-Stream Dataset for
Object Classification", 2017; G. Orchard et al., "Converting Static Image
Datasets to Spiking Neuromorphic Datasets Using Saccades", 2015.
"""

import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Callable

from mlf_jax.data import event_archives, event_files
from mlf_jax.data.event_archives import Member
from mlf_jax.data.events import Events
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Recording:
  """One file of events, and what other files say of it.

  Attributes:
    id: its name in the data set.
    split: one of the splits of the data set.
    file: its events.
    label: the class of all of it, None if its parts have classes.
    intervals: the file with class and time of each part, None if none.
  """

  id: str
  split: str
  file: Member
  label: int | None = None
  intervals: Member | None = None


@dataclasses.dataclass(frozen=True)
class Skip:
  """Something that is not in the prepared data, and why."""

  what: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Sample:
  """What is classified: a recording, or a part of one."""

  id: str
  label: int
  events: Events


Found = tuple[list[Recording], list[Skip]]


@dataclasses.dataclass(frozen=True)
class EventSet:
  """What is published about a data set.

  Attributes:
    name: its name here.
    classes: names of its classes.
    splits: its official splits; 'train' alone if there are none.
    sensor_size: (height, width) in pixels.
    archives: file names of its archives.
    source: what is to be downloaded, of what size and from where.
    frames: how the paper makes frames.
    pattern: of the path of a file that is needed.
    find: sorts out the files that match.
    read: reads the events of a recording.
  """

  name: str
  classes: tuple[str, ...]
  splits: tuple[str, ...]
  sensor_size: tuple[int, int]
  archives: tuple[str, ...]
  source: str
  frames: FrameSpec
  pattern: re.Pattern
  find: Callable[['EventSet', list[Member]], Found]
  read: Callable[..., Events]


def natural(name: str) -> list:
  """Sorting key in which 10 comes after 9."""
  return [
    int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)
  ]


def find_recordings(
  event_set: EventSet, manual_dir: str, extracted: pathlib.Path
) -> Found:
  """Finds the recordings of a data set, as downloaded or extracted.

  Args:
    event_set: the data set.
    manual_dir: an archive; or a folder with the archives, or with the files
      that were in them, at any depth.
    extracted: where a .tar.gz archive may be extracted to.

  Returns:
    The recordings, in the order of their numbers, and what is left out.

  Raises:
    UserError: there are none, a split or a class has none, or an archive is
      damaged.
  """
  place = pathlib.Path(manual_dir).expanduser()
  if not place.exists():
    raise UserError(f'{manual_dir} does not exist. {event_set.source}')
  archives, members = [place], []
  if place.is_dir():
    files = event_archives.in_folder(place)
    archives = [f.path for f in files if f.path.name in event_set.archives]
    members = [f for f in files if event_set.pattern.search(f.name)]
  for archive in sorted(archives):
    if archive.suffix == '.zip':
      members += [
        m
        for m in event_archives.in_zip(archive)
        if event_set.pattern.search(m.name)
      ]
    # One who extracted it may have left a part away on purpose.
    elif not members:
      event_archives.extract(archive, extracted, event_set.pattern.search)
      members += event_archives.in_folder(extracted)
  recordings, skips = event_set.find(event_set, members)
  if not recordings:
    raise UserError(
      f'{manual_dir} holds no recordings of {event_set.name}'
      + (f' ({skips[0].what}: {skips[0].reason})' if skips else '')
      + f'. {event_set.source}'
    )
  for split in event_set.splits:
    if not any(r.split == split for r in recordings):
      raise UserError(
        f'{manual_dir} holds no {split} recordings of {event_set.name}. '
        + event_set.source
      )
  labels = {r.label for r in recordings}
  for label, name in enumerate(event_set.classes):
    if labels != {None} and label not in labels:
      raise UserError(
        f'{manual_dir} holds no recordings of class {name!r} of '
        f'{event_set.name}. {event_set.source}'
      )
  # Of a file that is there twice, in a folder and in an archive, the former.
  unique = {r.id: r for r in reversed(recordings)}
  return sorted(unique.values(), key=lambda r: natural(r.id)), skips


def read(
  event_set: EventSet, recording: Recording, backwards: str
) -> tuple[list[Sample], list[Skip], int]:
  """Reads a recording and divides it into what is classified.

  Args:
    event_set: the data set.
    recording: one of its recordings.
    backwards: see `event_files.read_aedat`.

  Returns:
    The samples, what of the recording cannot be used, and how many events its
    file marks as invalid or special.

  Raises:
    UserError: a file is damaged: nothing of the recording can be used.
  """
  with recording.file.open() as file:
    events = event_set.read(file, backwards=backwards)
  samples, skips = [], []
  if not len(events):
    skips.append(Skip(recording.id, f'{recording.file} has no events'))
  elif recording.intervals is None:
    samples.append(Sample(recording.id, recording.label, events))
  else:
    rows = _read_intervals(recording.intervals)
    for number, (line, label, start, stop) in enumerate(rows):
      name = f'{recording.id}/{number:02d}'
      where = f'{recording.intervals}: line {line}: '
      part = events.between(start, stop)
      if not 1 <= label <= len(event_set.classes):
        reason = f'class {label} is none of 1 to {len(event_set.classes)}'
        skips.append(Skip(name, where + reason))
      elif not len(part):
        reason = (
          f'no events from {start} to {stop} us; the recording lasts from '
          f'{events.t[0]} to {events.t[-1]} us'
        )
        skips.append(Skip(name, where + reason))
      else:
        samples.append(Sample(name, label - 1, part))
  return samples, skips, events.dropped


def _read_intervals(member: Member) -> list[tuple[int, int, int, int]]:
  """Line number, class, start and end of the rows of a csv file of labels."""
  columns = ('class', 'startTime_usec', 'endTime_usec')
  with member.open() as file:
    text = file.read().decode('utf-8-sig', 'replace')
  reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
  fields = [field.strip() for field in reader.fieldnames or ()]
  missing = [column for column in columns if column not in fields]
  if missing:
    raise UserError(
      f'{member}: byte 0: the column {missing[0]} is missing; the first line '
      f'must name {", ".join(columns)}'
    )
  reader.fieldnames = fields
  rows = []
  for row in reader:
    values = [row[column] for column in columns]
    if not all(v and v.strip().isdecimal() for v in values):
      raise UserError(
        f'{member}: line {reader.line_num}: {values} are not three numbers'
      )
    rows.append((reader.line_num, *map(int, values)))
  return rows


def _find_gestures(event_set: EventSet, members: list[Member]) -> Found:
  """Recordings by the trial lists where they are, else by subject."""
  files = {pathlib.PurePosixPath(m.name).name: m for m in reversed(members)}
  split_of, recordings, skips = {}, [], []
  lists = [s for s in event_set.splits if f'trials_to_{s}.txt' in files]
  for split in lists:
    with files[f'trials_to_{split}.txt'].open() as file:
      for name in file.read().decode('utf-8', 'replace').split():
        split_of[name] = split
        if name not in files:
          skips.append(
            Skip(name, f'it is listed in trials_to_{split}.txt, but missing')
          )
  for name, member in files.items():
    match = re.fullmatch(r'(user(\d+)_\w+)\.aedat', name)
    if match is None:
      continue
    by_subject = 'train' if int(match[2]) <= 23 else 'test'
    split = split_of.get(name, None if len(lists) == 2 else by_subject)
    labels = files.get(f'{match[1]}_labels.csv')
    if split is None:
      skips.append(Skip(name, 'it is in neither list of trials'))
    elif labels is None:
      skips.append(Skip(name, f'{match[1]}_labels.csv is missing'))
    else:
      recordings.append(Recording(match[1], split, member, intervals=labels))
  return recordings, skips


def _find_by_path(event_set: EventSet, members: list[Member]) -> Found:
  """Recordings whose path names the class, and the split if there is one."""
  recordings = []
  for member in members:
    match = event_set.pattern.search(member.name).groupdict()
    recordings.append(
      Recording(
        id=match['id'],
        split=match.get('split', 'train').lower(),
        file=member,
        label=event_set.classes.index(match['class']),
      )
    )
  return recordings, []


_CIFAR_CLASSES = (
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)

# Sizes: the README of the data set; the sum of the ten files; rounded.
EVENT_SETS = {
  'dvs_gesture': EventSet(
    name='dvs_gesture',
    classes=(
      'hand_clapping',
      'right_hand_wave',
      'left_hand_wave',
      'right_arm_clockwise',
      'right_arm_counter_clockwise',
      'left_arm_clockwise',
      'left_arm_counter_clockwise',
      'arm_roll',
      'air_drums',
      'air_guitar',
      'other_gestures',
    ),
    splits=('train', 'test'),
    sensor_size=event_files.DVS128,
    archives=('DvsGesture.tar.gz',),
    source=(
      'Download DvsGesture.tar.gz (3 GB; 5 GB extracted) from '
      'https://research.ibm.com/interactive/dvsgesture/'
    ),
    frames=FrameSpec(40, 'window', 30_000, 4.0),
    pattern=re.compile(
      r'(?:^|/)(?:user\d+_\w+\.aedat|user\d+_\w+_labels\.csv'
      r'|trials_to_(?:train|test)\.txt)$'
    ),
    find=_find_gestures,
    read=event_files.read_aedat,
  ),
  'cifar10_dvs': EventSet(
    name='cifar10_dvs',
    classes=_CIFAR_CLASSES,
    splits=('train',),
    sensor_size=event_files.DVS128,
    archives=tuple(f'{name}.zip' for name in _CIFAR_CLASSES),
    source=(
      'Download the ten archives airplane.zip to truck.zip (8 GB together) '
      'from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671'
    ),
    frames=FrameSpec(10, 'window', 10_000, 3.04),
    pattern=re.compile(
      rf'(?:^|/)(?P<id>cifar10_(?P<class>{"|".join(_CIFAR_CLASSES)})_\d+)'
      r'\.aedat$'
    ),
    find=_find_by_path,
    read=event_files.read_aedat,
  ),
  'n_mnist': EventSet(
    name='n_mnist',
    classes=tuple('0123456789'),
    splits=('train', 'test'),
    sensor_size=event_files.N_MNIST,
    archives=('Train.zip', 'Test.zip'),
    source=(
      'Download Train.zip and Test.zip (about 1.2 GB together) from '
      'https://www.garrickorchard.com/datasets/n-mnist'
    ),
    frames=FrameSpec(10, 'window', 30_000, 1.0),
    pattern=re.compile(
      r'(?:^|/)(?P<id>(?P<split>Train|Test)/(?P<class>\d)/\d+)\.bin$'
    ),
    find=_find_by_path,
    read=event_files.read_n_mnist,
  ),
}
