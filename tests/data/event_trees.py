"""Miniature event-camera data sets in the published formats and layouts.

The events are simulated: those of a class lie around a place of its own, so
that the classes are separable.
"""

import pathlib
import zipfile

import numpy as np

from mlf_jax.data.events import EVENT_SETS
from tests.data import recordings
from tests.data.miniature import write_tar as write_tar

# (t, x, y, p) of the events of one sample or recording.
CIFAR10_CLASSES = EVENT_SETS['cifar10_dvs'].classes
EventList = list[tuple[int, int, int, int]]


def sample(
  random, label: int, start: int, length: int, count: int, side: int = 128
) -> EventList:
  """Events of one class in [start, start + length) microseconds."""
  t = np.sort(random.integers(start, start + length, count))
  step = side // 4
  x = step * (label % 4) + step // 2 + random.integers(-3, 4, count)
  y = step * (label // 4) + step // 2 + random.integers(-3, 4, count)
  p = random.integers(0, 2, count)
  return [tuple(map(int, event)) for event in zip(t, x, y, p, strict=True)]


def dvs_gesture(users, *, seed=0, count=120):
  """DVS-Gesture: one recording of all 11 classes per user.

  The gestures last 0.4 s, 0.1 s apart, from the second 0.2 on; between them
  there are events of no class.

  Returns:
    The files by name; label and events of each sample by its id.
  """
  random = np.random.default_rng(seed)
  files, samples = {}, {}
  for user in users:
    name = f'user{user:02d}_{"led" if user % 2 else "fluorescent_led"}'
    events, rows = [], ['class,startTime_usec,endTime_usec']
    for number, label in enumerate(random.permutation(11).tolist()):
      start = 200_000 + 500_000 * number
      gesture = sample(random, label, start, 400_000, count)
      events += sample(random, 11, start - 100_000, 90_000, 10) + gesture
      rows.append(f'{label + 1},{start},{start + 400_000}')
      samples[f'{name}/{number:02d}'] = (label, gesture)
    files[f'{name}.aedat'] = recordings.aedat3(events, (50, 1, 300))
    files[f'{name}_labels.csv'] = '\n'.join([*rows, '']).encode()
  return files, samples


def trial_lists(files: dict[str, bytes], test_users) -> dict[str, bytes]:
  """The two lists of trials of DVS-Gesture."""
  trials = {'train': [], 'test': []}
  for name in files:
    if name.endswith('.aedat'):
      is_test = int(name[4:6]) in test_users
      trials['test' if is_test else 'train'].append(name)
  return {
    f'trials_to_{split}.txt': '\n'.join([*names, '']).encode()
    for split, names in trials.items()
  }


def cifar10_dvs(per_class, *, seed=0, count=60) -> dict[str, EventList]:
  """Recordings of CIFAR10-DVS by path, `per_class` of each class."""
  random = np.random.default_rng(seed)
  return {
    f'{name}/cifar10_{name}_{number}.aedat': sample(
      random, label, 7000, 100_000, count
    )
    for label, name in enumerate(CIFAR10_CLASSES)
    for number in range(per_class)
  }


def n_mnist(per_class, *, seed=0, count=60) -> dict[str, EventList]:
  """Recordings of N-MNIST by path, `per_class` of each digit and split."""
  random = np.random.default_rng(seed)
  return {
    f'{split}/{label}/{label * per_class + number + 1:05d}.bin': sample(
      random, label, 500, 300_000, count, side=34
    )
    for split in ('Train', 'Test')
    for label in range(10)
    for number in range(per_class)
  }


def write_folder(folder: pathlib.Path, files: dict[str, bytes]) -> None:
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_zips(folder: pathlib.Path, files: dict[str, bytes]) -> None:
  """One zip archive for each first part of a path."""
  folder.mkdir(parents=True, exist_ok=True)
  # Written in another order than that of the numbers, as disks do.
  for name in sorted(files, reverse=True):
    path = folder / f'{name.split("/")[0]}.zip'
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive:
      archive.writestr(name, files[name])


def frames_by_loop(
  events: EventList, time_steps: int, window: int, downsample: float, side: int
) -> np.ndarray:
  """Frames of fixed windows, one event after another."""
  size = int((side - 1) // downsample) + 1
  frames = np.zeros((time_steps, size, size, 2), int)
  for t, x, y, p in events:
    step = (t - events[0][0]) // window
    if step < time_steps:
      frames[step, int(y // downsample), int(x // downsample), p] += 1
  return np.minimum(frames, 255).astype(np.uint8)
