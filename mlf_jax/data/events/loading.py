"""Event-camera data sets, prepared at first use and then read from disk."""

import dataclasses
import json
import pathlib
import warnings

from mlf_jax.data import splits
from mlf_jax.data.dataset import Dataset, LoadOptions, Split
from mlf_jax.data.events.catalogue import EVENT_SETS
from mlf_jax.data.events.formats import BACKWARDS
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.errors import UserError, unknown


def load(name: str, options: LoadOptions) -> Dataset:
  """Loads a data set, preparing it first if it is not prepared.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    options: how recordings become frames and are divided, and the folders.

  Returns:
    Images uint8 [n, time, height, width, 2], counts of events; labels int32
    [n]; ids; in the order of the recordings' numbers.

  Raises:
    UserError: the data set cannot be prepared or read.
  """
  event_set, split_name = EVENT_SETS[name], options.split_name
  if event_set.default_split:
    # Before hours of preparation.
    split_name = splits.canonical_name(split_name)
  directory = prepare(
    name, options.frames, options.data_dir, options.manual_dir
  )
  # It imports tensorflow_datasets, which is slow.
  from mlf_jax.data.events import tfds_store

  parts = {
    part: Split(*tfds_store.read_frames(directory, part))
    for part in event_set.splits
  }
  if event_set.default_split:
    undivided = parts['train']
    is_test = splits.test_mask(split_name, undivided.labels)
    parts = {
      'train': splits.chosen(undivided, ~is_test),
      'test': splits.chosen(undivided, is_test),
    }
  return Dataset(
    name=name,
    split_name=split_name or 'official',
    num_classes=len(event_set.classes),
    **parts,
    # Networks get the counts as they are.
    scale=1,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
    class_names=tuple(event_set.classes),
  )


def prepare(
  name: str,
  frames: FrameSpec | None = None,
  data_dir: str = '',
  manual_dir: str = '',
  backwards: str | None = None,
  processes: int | None = None,
) -> pathlib.Path:
  """Makes frames of a data set, unless they are prepared already.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    frames: how recordings become frames; as in the paper by default.
    data_dir: the folder of prepared data sets, empty for the default one.
    manual_dir: the recordings, see `recordings.find_recordings`.
    backwards: see `formats.read_aedat`; None is 'error', or the earlier choice
      if the data set is prepared already.
    processes: number of processes; None is one per CPU core.

  Returns:
    The folder of the prepared data set.

  Raises:
    UserError: there are no recordings, the folder cannot be written, or the
      prepared data were made with another `backwards`.
  """
  from mlf_jax.data import tfds_format
  from mlf_jax.data.events import tfds_store

  event_set = EVENT_SETS[name]
  if backwards not in (None, *BACKWARDS):
    raise unknown('backwards', backwards, BACKWARDS)
  frames = frames or event_set.frames
  frames.shape(event_set.sensor_size)  # Raises if the crop is too large.
  side = min(frames.crop) or min(event_set.sensor_size)
  if frames.downsample > side:
    raise UserError(
      f'downsample must be at most {side}, the side of the '
      f'{"crop" if any(frames.crop) else "sensor"} of {name}, got '
      f'{frames.downsample}'
    )
  root = tfds_format.data_root(data_dir)
  folder = _folder(name, frames, root)
  # Before the other question: another process may give it its name just now.
  exists = folder.exists()
  directory = find_prepared(name, frames, data_dir)
  is_new = directory is None
  if is_new:
    if exists:
      raise UserError(
        f'{folder} is no prepared data set, it lacks dataset_info.json: delete '
        'it'
      )
    if not manual_dir:
      others = _other_frames(name, frames, root)
      how = (
        f'{name} is in {root}, but with other frames: {"; ".join(others)}. Ask '
        'for those, or name the recordings to have these frames made'
        if others
        else f'{name} is not in {root} and has to be downloaded by hand. '
        f'{event_set.source}, into a folder DIR, and run this again'
      )
      raise UserError(
        f'{how} with --config.data.manual_dir=DIR (of `python -m mlf_jax '
        'prepare` it is --manual_dir=DIR)'
      )
    directory = tfds_store.prepare_frames(
      name, frames, root, manual_dir, backwards or 'error', processes
    )
  # Another process may have prepared them while this one waited.
  summary = tfds_store.read_summary(directory)
  if backwards not in (None, summary['backwards']):
    raise UserError(
      f'{directory} was prepared with backwards={summary["backwards"]!r}: '
      'delete it to have it prepared anew'
    )
  if is_new and summary['skipped']:
    first = summary['skipped'][0]
    warnings.warn(
      f'{len(summary["skipped"])} skipped of {name}, the first: '
      f'{first["what"]}: {first["reason"]}; `python -m mlf_jax prepare {name}` '
      'lists all',
      stacklevel=2,
    )
  return directory


def find_prepared(
  name: str, frames: FrameSpec, data_dir: str = ''
) -> pathlib.Path | None:
  """Returns the folder of a prepared data set, None if it is not prepared.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    frames: how its frames were made.
    data_dir: the folder of prepared data sets, empty for the default one.
  """
  from mlf_jax.data import tfds_format

  folder = _folder(name, frames, tfds_format.data_root(data_dir))
  return folder if (folder / 'dataset_info.json').exists() else None


def _folder(name: str, frames: FrameSpec, root: pathlib.Path) -> pathlib.Path:
  """Folder of prepared frames. An earlier version holds other frames."""
  return root / name / frames.name / EVENT_SETS[name].version


def _other_frames(
  name: str, wanted: FrameSpec, root: pathlib.Path
) -> list[str]:
  """Describes what is prepared, by the fields that differ from `wanted`."""
  others = []
  for info in sorted((root / name).glob('*/*/dataset_info.json')):
    try:
      metadata = json.loads(info.with_name('metadata.json').read_bytes())
      found = FrameSpec(**metadata['frames'])
    except (OSError, ValueError, KeyError, TypeError):
      continue  # Damaged, or not ours.
    differences = [
      f'{field} is {there!r}, not {here!r}'
      for field, here in dataclasses.asdict(wanted).items()
      if (there := getattr(found, field)) != here
    ]
    if (version := info.parent.name) != EVENT_SETS[name].version:
      differences.append(
        f'version {version}, which version {EVENT_SETS[name].version} replaces'
      )
    others.append(f'{info.parent} ({", ".join(differences)})')
  return others


def paper_frames(
  name: str,
  *,
  time_steps: int | None = None,
  binning: str | None = None,
  window_ms: float | None = None,
  downsample: float | None = None,
  mirrored: bool = False,
  crop: tuple[int, int] = (0, 0),
) -> FrameSpec:
  """Returns the paper's frames of a data set, changed by what is given.

  Args:
    name: 'dvs_gesture', 'cifar10_dvs' or 'n_mnist'.
    time_steps: number of frames.
    binning: one of `frames.BINNINGS`.
    window_ms: length of a window in milliseconds; 0 for the other binnings.
    downsample: sensor pixels per frame pixel, along each side.
    mirrored: mirrors the sensor left and right.
    crop: (height, width) of the middle of the sensor, which is kept; (0, 0)
      keeps all.

  Raises:
    UserError: no such data set, or a value outside its range.
  """
  paper = EVENT_SETS[name].frames
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
    mirrored,
    crop,
  )


def describe_prepared(directory: pathlib.Path) -> str:
  """Describes a prepared data set and what was left out, in several lines.

  Args:
    directory: the folder that `prepare` returned.

  Raises:
    UserError: the folder is damaged.
  """
  from mlf_jax.data.events import tfds_store

  summary = tfds_store.read_summary(directory)
  samples = summary['samples']
  published = summary['published_recordings']
  published = f' of the {published:,} published' if published else ''
  classes = list(next(iter(samples.values())))
  width = max(map(len, classes))
  lines = [
    str(directory),
    f'{summary["recordings"]:,} recordings{published}, '
    f'{summary["events"]:,} events in samples',
    f'train and test are told apart by {summary["split_rule"]}',
    ' ' * width + ''.join(f'{name:>9}' for name in samples),
  ]
  totals = [sum(counts.values()) for counts in samples.values()]
  rows = [(c, [counts[c] for counts in samples.values()]) for c in classes]
  for name, counts in [*rows, ('samples', totals)]:
    lines.append(f'{name:<{width}}' + ''.join(f'{c:9,}' for c in counts))
  frames = summary['frames']
  window = f' of {frames["window_us"]} us' if frames['window_us'] else ''
  # Frames that were prepared before there were crops do not name one.
  crop = frames.get('crop', (0, 0))
  lines += [
    f'{frames["time_steps"]} frames by {frames["binning"]}{window}, '
    + ('cropped to {} x {} and '.format(*crop) if any(crop) else '')
    + f'{"mirrored left and right and " if frames["mirrored"] else ""}'
    f'downsampled by {frames["downsample"]:g}; '
    f'{summary["padded_share"]:.1%} of the frames begin after the last event',
    f'{summary["dropped_events"]:,} events dropped that their files mark as '
    'invalid or special, or that are clock markers',
    f'{len(summary["skipped"])} skipped'
    + (
      '; to have what is mended since, delete the folder and prepare it again'
      if summary['skipped']
      else ''
    ),
    *(f'  {s["what"]}: {s["reason"]}' for s in summary['skipped']),
  ]
  return '\n'.join(lines)
