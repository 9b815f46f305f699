"""From the files of a published data set to its recordings and samples."""

import bisect
import csv
import dataclasses
import filecmp
import pathlib
import re
import warnings

from mlf_jax.data import archives, downloads
from mlf_jax.data.archives import Member
from mlf_jax.data.events.catalogue import EventSet, Found, Recording, Skip
from mlf_jax.data.events.events import Events
from mlf_jax.errors import UserError

_COLUMNS = ('class', 'startTime_usec', 'endTime_usec')


@dataclasses.dataclass(frozen=True)
class Sample:
  """Events with one class: a recording, or a part of one."""

  id: str
  label: int
  events: Events


def find_recordings(
  event_set: EventSet, manual_dir: str, extracted: pathlib.Path
) -> Found:
  """Finds the recordings of a data set, as downloaded or extracted.

  Args:
    event_set: the data set.
    manual_dir: an archive; or a folder with the archives, or with the files
      that were in them, at any depth. A file that is both in an archive and
      beside it is read from the archive: the other may be half extracted.
    extracted: folder to which a .tar.gz archive may be extracted.

  Returns:
    The recordings in the order of their numbers, the files that are left out,
    and the rule that divided the splits.

  Raises:
    UserError: there are none, a split or a class of a split has none, two
      different files have the same name, or an archive is damaged.
  """
  place = pathlib.Path(manual_dir).expanduser()
  if not place.exists():
    raise UserError(f'{manual_dir} does not exist. {event_set.source}')
  if place.is_file() and not place.name.endswith(('.zip', '.tar.gz')):
    raise UserError(
      f'{manual_dir} is none of the archives {", ".join(event_set.archives)} '
      'and no folder'
    )
  packed, loose, skips = [place], [], []
  if place.is_dir():
    loose, broken = archives.folder_members(place)
    packed = [m.path for m in loose if m.path.name in event_set.archives]
    # The link may have stood for a folder of recordings.
    skips += [Skip(name, 'it is a link that leads nowhere') for name in broken]
    for name in broken:
      if pathlib.PurePosixPath(name).name in event_set.archives:
        raise UserError(f'{place / name} is a link that leads nowhere')
  tars = [path for path in packed if path.name.endswith('.tar.gz')]
  if len(tars) > 1:
    raise UserError(
      f'{tars[0]} and {tars[1]} are both there: name the one that is meant'
    )
  archived = []
  for archive in packed:
    _compare_sum(event_set, archive)
    if archive.name.endswith('.tar.gz'):
      files = archives.extract_tar(archive, extracted, event_set.pattern.search)
      archived += archives.folder_members(files)[0]
    else:
      members = archives.zip_members(archive)
      _refuse_nested(event_set, archive, members)
      archived += members
  files, doubles = _by_name(event_set, archived)
  loose, more_doubles = _by_name(event_set, loose)
  found = event_set.find_recordings(event_set, loose | files)
  skips += [*doubles, *more_doubles, *found.skips]
  _require_all(event_set, found.recordings, manual_dir, skips)
  recordings = sorted(found.recordings, key=lambda r: _natural(r.id))
  return Found(recordings, skips, found.split_rule)


def _compare_sum(event_set: EventSet, archive: pathlib.Path) -> None:
  """Warns if an archive is not the published one, where its sum is known."""
  published = event_set.md5.get(archive.name)
  if published and (found := downloads.checksum(archive, 'md5')) != published:
    # Only a warning: the user may have chosen a part of the data set.
    warnings.warn(
      f'{archive} has MD5 {found}, but {published} is published', stacklevel=4
    )


def _refuse_nested(
  event_set: EventSet, archive: pathlib.Path, members: list[Member]
) -> None:
  """Raises if an archive holds what is not read from within it."""
  for member in members:
    name = pathlib.PurePosixPath(member.name).name
    if name in event_set.archives:
      raise UserError(
        f'{archive} holds other archives ({member.name}): extract it, and name '
        'the folder that it is extracted to'
      )
    if name.endswith('.aedat4'):
      raise UserError(
        f'{archive} holds recordings in AEDAT 4 ({member.name}), into which '
        f'others have converted {event_set.name}: they are not read. '
        f'{event_set.source}'
      )


def _by_name(
  event_set: EventSet, members: list[Member]
) -> tuple[dict[str, Member], list[Skip]]:
  """Returns files by the part of their path that matches, and duplicates."""
  files, skips = {}, []
  for member in members:
    match = event_set.pattern.search(member.name)
    if match is None:
      continue
    name = match[0].removeprefix('/')
    first = files.setdefault(name, member)
    if first is member:
      continue
    if not _same(first, member):
      raise UserError(
        f'{first} and {member} have the same name, but not the same content: '
        'remove the one that is wrong'
      )
    skips.append(Skip(str(member), f'it is the same as {first}'))
  return files, skips


def _same(a: Member, b: Member) -> bool:
  if a.archived:
    return (a.size, a.stamp) == (b.size, b.stamp)
  return filecmp.cmp(a.path, b.path, shallow=False)


def _require_all(event_set, recordings, manual_dir, skips):
  """Raises if a split, or a class of it, has no recording at all."""
  there = {(r.split, r.label) for r in recordings}
  splits = {split for split, _ in there}
  missing = next(
    (
      f' {split} recordings'
      + (f' of class {name!r}' if split in splits else '')
      for split in event_set.splits
      for label, name in enumerate(event_set.classes)
      if not {(split, None), (split, label)} & there
    ),
    '',
  )
  if missing:
    first = f' ({skips[0].what}: {skips[0].reason})' if skips else ''
    raise UserError(
      f'{manual_dir} holds no{missing if recordings else " recordings"} of '
      f'{event_set.name}, files such as {event_set.example}{first}; name the '
      f'folder that holds all of it. {event_set.source}'
    )


def _natural(name: str) -> list:
  """Sorting key by which 10 comes after 9."""
  return [
    int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)
  ]


def read_samples(
  event_set: EventSet, recording: Recording, backwards: str
) -> tuple[list[Sample], list[Skip], int]:
  """Reads a recording and divides it into samples.

  Args:
    event_set: the data set.
    recording: one of its recordings.
    backwards: see `formats.read_aedat`.

  Returns:
    The samples, the parts that cannot be used, and the number of events that
    the file marks as invalid or special.

  Raises:
    UserError: a file is damaged; none of the recording can be used.
  """
  with recording.file.open() as file:
    events = event_set.read_events(file, backwards=backwards)
  samples, skips = [], []
  if not len(events):
    skips.append(Skip(recording.id, f'{recording.file} has no events'))
  elif recording.intervals is None:
    samples.append(Sample(recording.id, recording.label, events))
  else:
    rows = _read_intervals(recording.intervals)
    if not rows:
      reason = f'{recording.intervals} names no gesture'
      skips.append(Skip(recording.id, reason))
    starts = sorted(start for _, _, start, _ in rows)
    for number, (line, label, start, stop) in enumerate(rows):
      name = f'{recording.id}/{number:02d}'
      where = f'{recording.intervals}: line {line}: '
      part = events.between(start, stop)
      if not 1 <= label <= len(event_set.classes):
        reason = f'class {label} is none of 1 to {len(event_set.classes)}'
        skips.append(Skip(name, where + reason))
      elif stop <= start:
        reason = f'its end, {stop} us, is not after its start, {start} us'
        skips.append(Skip(name, where + reason))
      elif (later := bisect.bisect_right(starts, start)) < len(starts) and (
        stop > starts[later]
      ):
        reason = (
          f'its end, {stop} us, lies after {starts[later]} us, where the next '
          'label begins'
        )
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
  """Reads line number, class, start and end of each row of a csv file."""
  reader = csv.DictReader(
    member.read_lines(), skipinitialspace=True, restval=''
  )
  rows = []
  try:
    names = reader.fieldnames = [n.strip() for n in reader.fieldnames or ()]
    missing = [column for column in _COLUMNS if column not in names]
    if missing:
      raise UserError(
        f'{member}: byte 0: the column {missing[0]} is missing; the first line '
        f'must name {", ".join(_COLUMNS)}'
      )
    for row in reader:
      numbers = [row[column].strip() for column in _COLUMNS]
      if not all(re.fullmatch('[0-9]{1,18}', number) for number in numbers):
        raise UserError(
          f'{member}: line {reader.line_num}: {", ".join(_COLUMNS)} are '
          f'{numbers}, not three numbers'
        )
      rows.append((reader.line_num, *map(int, numbers)))
  except csv.Error as error:
    line = reader.reader.line_num
    raise UserError(f'{member}: line {line}: {error}') from error
  return rows
