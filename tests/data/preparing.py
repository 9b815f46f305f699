"""Miniature data sets in the folders where preparation looks for them.

`folder/manual` holds what was downloaded, `folder/prepared` what comes of it.
"""

from mlf_jax import data
from mlf_jax.data import FrameSpec
from mlf_jax.data.events import EVENT_SETS, conversion, loading
from tests.data import event_trees, recordings

# Subjects 1 to 23 train, unless lists say otherwise.
USERS = (2, 10, 23, 24, 29)
BY_SUBJECT = (24, 29)
BY_LIST = (10, 24)
GESTURES, GESTURE_SAMPLES = event_trees.dvs_gesture(USERS)
SMALL = FrameSpec(5, 'window', 70_000, 16.0)


def load(name, folder, frames=SMALL, split_name=''):
  return data.load(
    name,
    data.LoadOptions(
      frames, split_name, str(folder / 'prepared'), str(folder / 'manual')
    ),
  )


def prepare(name, folder, frames=SMALL, **kwargs):
  directory = loading.prepare(
    name, frames, str(folder / 'prepared'), str(folder / 'manual'), **kwargs
  )
  return loading.describe_prepared(directory).splitlines()


def serialize(sample):
  """A record that tells the whole sample."""
  text = f'{sample["id"]} {sample["label"]} {sample["frames"].sum()}'
  return text.encode() + sample['frames'].tobytes()


def convert(name, folder, spec=SMALL, processes=1, manual=None, **options):
  """Converts the data set in `folder/manual` to `folder/work`."""
  work = folder / 'work'
  work.mkdir(exist_ok=True)
  return conversion.convert(
    EVENT_SETS[name],
    str(manual or folder / 'manual'),
    spec,
    work,
    serialize,
    processes=processes,
    **options,
  )


def write_gestures(folder, files=GESTURES, archive=True):
  """DVS-Gesture as downloaded or as extracted, in `folder/manual`."""
  manual = folder / 'manual'
  manual.mkdir()
  files = {f'DvsGesture/{name}': content for name, content in files.items()}
  if archive:
    event_trees.write_tar(manual / 'DvsGesture.tar.gz', files)
  else:
    event_trees.write_folder(manual, files)


def write_cifar(folder, per_class, zipped=True, **changes):
  """CIFAR10-DVS as downloaded or as extracted, in `folder/manual`."""
  events = event_trees.cifar10_dvs(per_class)
  files = {
    name: recordings.cifar10_dvs(e) for name, e in events.items()
  } | changes
  if zipped:
    event_trees.write_zips(folder / 'manual', files)
  else:
    event_trees.write_folder(folder / 'manual', files)
  return events
