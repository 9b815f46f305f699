"""Event-camera data sets, prepared at first use and then read from disk."""

import pathlib
import warnings

from mlf_jax.data import splits
from mlf_jax.data.dataset import Dataset
from mlf_jax.data.event_files import BACKWARDS
from mlf_jax.data.event_sets import EVENT_SETS, EventSet
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError, unknown


def load(
  name: str,
  split: str,
  frames: FrameSpec,
  data_dir: str = '',
  manual_dir: str = '',
  split_name: str = '',
) -> Dataset:
  """Loads one split, preparing the data set first where it is not prepared.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    split: 'train' or 'test'.
    frames: how recordings become frames.
    data_dir: the folder of prepared data sets, empty for the default one.
    manual_dir: the recordings, see `recordings.find`.
    split_name: for cifar10_dvs how train and test are divided, see `splits`.

  Returns:
    images uint8 [n, time, height, width, 2], counts of events; labels int32
    [n]; ids; in the order of their numbers.

  Raises:
    UserError: the data set cannot be prepared or read.
  """
  # It imports tensorflow_datasets, which other data sets do without.
  from mlf_jax.data import tfds_events

  event_set = EVENT_SETS[name]
  is_official = 'test' in event_set.splits
  if not is_official:
    split_name = splits.check(split_name)  # Before hours of preparation.
  directory = prepare(name, frames, data_dir, manual_dir)
  if not is_official:
    images, labels, ids = tfds_events.read_frames(directory, 'train')
    members = splits.test_mask(split_name, labels)
    if split == 'train':
      members = ~members
    images, labels, ids = images[members], labels[members], ids[members]
  else:
    split_name = 'official'
    images, labels, ids = tfds_events.read_frames(directory, split)
  return Dataset(
    name=name,
    split=split,
    split_name=split_name,
    images=images,
    labels=labels,
    num_classes=len(event_set.classes),
    # Networks get the counts as they are.
    scale=1,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
    ids=ids,
  )


def prepare(
  name: str,
  frames: FrameSpec | None = None,
  data_dir: str = '',
  manual_dir: str = '',
  backwards: str | None = None,
  processes: int | None = None,
) -> pathlib.Path:
  """Makes frames of a data set, unless they are there.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    frames: how; as in the paper by default.
    data_dir: the folder of prepared data sets, empty for the default one.
    manual_dir: the recordings, see `recordings.find`.
    backwards: see `event_files.read_aedat`; None is 'error', or what it was
      where the data set is there already.
    processes: how many work at once; None is one a CPU core.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: no recordings, the folder cannot be written, or what is there
      was made with another `backwards`.
  """
  from mlf_jax.data import tfds_events

  event_set = _event_set(name)
  if backwards not in (None, *BACKWARDS):
    raise unknown('backwards', backwards, BACKWARDS)
  frames = frames or event_set.frames
  if frames.downsample > min(event_set.sensor_size):
    raise UserError(
      f'downsample must be at most {min(event_set.sensor_size)}, the side of '
      f'the sensor of {name}, got {frames.downsample}'
    )
  directory, root = find(name, frames, data_dir), _root(data_dir)
  if directory is None and tfds_events.is_taken(name, frames, root):
    raise UserError(
      f'{root / name / frames.name} holds a folder that is no prepared data '
      'set, it lacks dataset_info.json: delete it'
    )
  if directory is not None:
    before = tfds_events.read_summary(directory)['backwards']
    if backwards not in (None, before):
      raise UserError(
        f'{directory} was prepared with backwards={before!r}: delete it to have'
        ' it prepared anew'
      )
    return directory
  if not manual_dir:
    raise UserError(
      f'{name} is not in {root} and has to be downloaded by hand. '
      f'{event_set.source}, into a folder DIR, and run this again with '
      '--config.data.manual_dir=DIR (of `python -m mlf_jax prepare` it is '
      '--manual_dir=DIR)'
    )
  directory = tfds_events.prepare_frames(
    name, frames, root, manual_dir, backwards or 'error', processes
  )
  skipped = tfds_events.read_summary(directory)['skipped']
  if skipped:
    warnings.warn(
      f'{len(skipped)} skipped of {name}, the first: {skipped[0]["what"]}: '
      f'{skipped[0]["reason"]}; `python -m mlf_jax prepare {name}` lists all',
      stacklevel=2,
    )
  return directory


def find(
  name: str, frames: FrameSpec, data_dir: str = ''
) -> pathlib.Path | None:
  """The folder of a prepared data set, None if it is not prepared.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    frames: how its frames were made.
    data_dir: the folder of prepared data sets, empty for the default one.
  """
  from mlf_jax.data import tfds_store

  return tfds_store.find_prepared(f'{name}/{frames.name}', _root(data_dir))


def _root(data_dir: str) -> pathlib.Path:
  from mlf_jax.data import tfds_store

  if data_dir:
    return pathlib.Path(data_dir).expanduser()
  return tfds_store.default_data_dir()


def frames_of(
  name: str,
  *,
  time_steps: int | None = None,
  binning: str | None = None,
  window_ms: float | None = None,
  downsample: float | None = None,
) -> FrameSpec:
  """How the paper makes frames of a data set, but for what is given.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    time_steps: number of frames.
    binning: one of `frames.BINNINGS`.
    window_ms: length of a window in milliseconds; 0 where there is none.
    downsample: pixels of the sensor a pixel of a frame, along each side.

  Raises:
    UserError: no such data set, or a value outside its range.
  """
  paper = _event_set(name).frames
  binning = binning or paper.binning
  window_us = paper.window_us if binning == 'window' else 0
  if window_ms is not None:
    window_us = round(1000 * window_ms)
    if window_ms and not window_us:
      raise UserError(
        f'window_ms must be at least 0.001, a microsecond, got {window_ms}'
      )
  return FrameSpec(
    paper.time_steps if time_steps is None else time_steps,
    binning,
    window_us,
    paper.downsample if downsample is None else downsample,
  )


def _event_set(name: str) -> EventSet:
  if name not in EVENT_SETS:
    raise unknown('data set of recordings', name, EVENT_SETS)
  return EVENT_SETS[name]


def describe(directory: pathlib.Path) -> str:
  """What is in a prepared data set and what was left out, some lines.

  Args:
    directory: what `prepare` returned.

  Raises:
    UserError: the folder is damaged.
  """
  from mlf_jax.data import tfds_events

  summary = tfds_events.read_summary(directory)
  classes = list(next(iter(summary['samples'].values())))
  width = max(map(len, classes))
  names = list(summary['samples'])
  published = summary['published_recordings']
  published = f' of the {published:,} published' if published else ''
  lines = [
    str(directory),
    f'{summary["recordings"]:,} recordings{published}, '
    f'{summary["events"]:,} events in samples',
    f'train and test are told apart by {summary["split_rule"]}',
    ' ' * width + ''.join(f'{name:>9}' for name in names),
  ]
  for label in classes:
    counts = (summary['samples'][name][label] for name in names)
    lines.append(f'{label:<{width}}' + ''.join(f'{c:9,}' for c in counts))
  totals = (sum(summary['samples'][name].values()) for name in names)
  lines.append(f'{"samples":<{width}}' + ''.join(f'{t:9,}' for t in totals))
  frames = summary['frames']
  window = f' of {frames["window_us"]} us' if frames['window_us'] else ''
  lines += [
    f'{frames["time_steps"]} frames by {frames["binning"]}{window}, '
    f'downsampled by {frames["downsample"]:g}; '
    f'{summary["padded_share"]:.1%} of the frames begin after the last event',
    f'{summary["dropped_events"]:,} events dropped that their files mark as '
    'invalid or special',
    f'{len(summary["skipped"])} skipped'
    + (
      '; to have what is mended since, delete the folder and prepare it again'
      if summary['skipped']
      else ''
    ),
    *(f'  {s["what"]}: {s["reason"]}' for s in summary['skipped']),
  ]
  return '\n'.join(lines)
