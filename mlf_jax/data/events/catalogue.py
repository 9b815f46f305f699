"""The published event-camera data sets: names and meaning of their files.

Sources: A. Amir et al., "A Low Power, Fully Event-Based Gesture Recognition
System", CVPR 2017; H. Li et al., "CIFAR10-DVS: An Event-Stream Dataset for
Object Classification", 2017; G. Orchard et al., "Converting Static Image
Datasets to Spiking Neuromorphic Datasets Using Saccades", 2015.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

from mlf_jax.data.archives import Member
from mlf_jax.data.events import formats
from mlf_jax.data.events.events import Events
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.images import digits
from mlf_jax.errors import UserError
from mlf_jax.registry import Registry, instance_of


@dataclasses.dataclass(frozen=True)
class Recording:
  """One file of events, with its class or the file that divides it.

  Attributes:
    id: its name in the data set.
    split: one of the splits of the data set.
    file: its events.
    label: the class of the whole recording, None if its parts have classes.
    intervals: the file with class and time of each part, None if none.
  """

  id: str
  split: str
  file: Member
  label: int | None = None
  intervals: Member | None = None


@dataclasses.dataclass(frozen=True)
class Skip:
  """Something that was left out of the prepared data, and the reason."""

  what: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Found:
  """Recordings that were found among the files of a data set.

  Attributes:
    recordings: recordings to be read.
    skips: files that are left out.
    split_rule: rule by which the recordings were divided into splits.
  """

  recordings: list[Recording]
  skips: list[Skip]
  split_rule: str


@dataclasses.dataclass(frozen=True)
class EventSet:
  """Published facts about a data set, and how to find and read its files.

  Attributes:
    name: its name here.
    classes: names of its classes.
    archives: file names of its archives.
    source: instructions what to download, with size and address.
    md5: MD5 sums of archives by their names, where they are published.
    frames: how the paper makes frames.
    example: the path of a recording.
    pattern: matches the paths of the files that are needed. The part that
      matches differs from file to file.
    find_recordings: finds recordings among files, given by the part of their
      path that matches.
    read_events: reads the events of a recording.
    sensor_size: (height, width) in pixels.
    version: version of the prepared frames, raised where the same recordings
      give other frames or samples than before.
    splits: its official splits; 'train' alone if there are none.
    published: number of its recordings, None if it is not known.
    default_split: name of the default split; '' if there are official ones.
    refused_augmentations: augmentations that change the class of a sample, by
      the name of the setting, with the reason.
  """

  name: str
  classes: tuple[str, ...]
  archives: tuple[str, ...]
  source: str
  frames: FrameSpec
  example: str
  pattern: re.Pattern
  find_recordings: Callable[['EventSet', dict[str, Member]], Found]
  read_events: Callable[..., Events] = formats.read_aedat
  md5: Mapping[str, str] = dataclasses.field(default_factory=dict)
  sensor_size: tuple[int, int] = formats.DVS128
  version: str = '1.0.0'
  splits: tuple[str, ...] = ('train', 'test')
  published: int | None = None
  default_split: str = ''
  refused_augmentations: Mapping[str, str] = dataclasses.field(
    default_factory=dict
  )


def _find_gestures(event_set: EventSet, files: dict[str, Member]) -> Found:
  """Finds gestures, divided by the lists of trials or, without, by subject."""
  lists = {
    split: files[f'trials_to_{split}.txt']
    for split in event_set.splits
    if f'trials_to_{split}.txt' in files
  }
  if len(lists) == 1:
    raise UserError(
      f'{next(iter(lists.values()))} is there, but the list of the other split '
      'is not: both are needed, or neither'
    )
  splits_of, skips = {}, []
  for split, member in lists.items():
    for name in filter(None, map(str.strip, member.read_lines())):
      splits_of.setdefault(name, set()).add(split)
      if name not in files:
        skips.append(Skip(name, f'{member} lists it, but it is missing'))
  recordings = []
  for name, member in files.items():
    match = re.fullmatch(r'(user(\d+)_\w+)\.aedat', name)
    if match is None:
      continue
    by_subject = {'train' if int(match[2]) <= 23 else 'test'}
    splits = splits_of.get(name, set()) if lists else by_subject
    labels = files.get(f'{match[1]}_labels.csv')
    if len(splits) != 1:
      number = 'neither' if not splits else 'more than one'
      skips.append(Skip(name, f'{number} of the lists of trials names it'))
    elif labels is None:
      skips.append(Skip(name, f'{match[1]}_labels.csv is missing'))
    else:
      recordings.append(Recording(match[1], *splits, member, intervals=labels))
  rule = 'lists of trials' if lists else 'subject (1 to 23 train)'
  return Found(recordings, skips, rule)


def _find_by_path(event_set: EventSet, files: dict[str, Member]) -> Found:
  """Finds recordings whose path names the class, and the split if any."""
  recordings = []
  for name, member in files.items():
    match = event_set.pattern.search(name).groupdict()
    recordings.append(
      Recording(
        id=match['id'],
        split=match.get('split', 'train').lower(),
        file=member,
        label=event_set.classes.index(match['class']),
      )
    )
  is_divided = 'test' in event_set.splits
  rule = 'folder' if is_divided else 'the name of a split, when loaded'
  return Found(recordings, [], rule)


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

# As downloaders of these archives check them: of the class archives
# SpikingJelly's, of the one with all classes tonic's.
_CIFAR10_DVS_MD5 = {
  'airplane.zip': '0afd5c4bf9ae06af762a77b180354fdd',
  'automobile.zip': '8438dfeba3bc970c94962d995b1b9bdd',
  'bird.zip': 'a9c207c91c55b9dc2002dc21c684d785',
  'cat.zip': '52c63c677c2b15fa5146a8daf4d56687',
  'deer.zip': 'b6bf21f6c04d21ba4e23fc3e36c8a4a3',
  'dog.zip': 'f379ebdf6703d16e0a690782e62639c3',
  'frog.zip': 'cad6ed91214b1c7388a5f6ee56d08803',
  'horse.zip': 'e7cbbf77bec584ffbf913f00e682782a',
  'ship.zip': '41c7bd7d6b251be82557c6cce9a7d5c9',
  'truck.zip': '89f3922fd147d9aeff89e76a2b0b70a7',
  'CIFAR10DVS.zip': 'ce3a4a0682dc0943703bd8f749a7701c',
}

# Sizes are from the README of DVS-Gesture, and the sums of the files.
EVENT_SETS = Registry('data set of recordings', instance_of(EventSet))
EVENT_SETS |= {
  'dvs_gesture': EventSet(
    name='dvs_gesture',
    version='2.0.0',  # 1.0.0 cut gestures at ends that cannot be right.
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
    archives=('DvsGesture.tar.gz',),
    source=(
      'Download DvsGesture.tar.gz (3 GB; 5 GB extracted; MD5 '
      '8a5c71fb11e24e5ca5b11866ca6c00a1) from '
      'https://research.ibm.com/interactive/dvsgesture/'
    ),
    md5={'DvsGesture.tar.gz': '8a5c71fb11e24e5ca5b11866ca6c00a1'},
    frames=FrameSpec(40, 'window', 30_000, 4.0),
    example='user01_led.aedat',
    pattern=re.compile(
      r'(?:^|/)(?:user\d+_\w+\.aedat|user\d+_\w+_labels\.csv'
      r'|trials_to_(?:train|test)\.txt)$'
    ),
    find_recordings=_find_gestures,
    refused_augmentations={
      'flip': 'a mirrored gesture is one of another class, the left '
      "hand's wave becomes the right hand's"
    },
  ),
  'cifar10_dvs': EventSet(
    name='cifar10_dvs',
    version='2.0.0',  # 1.0.0 was not upright.
    classes=_CIFAR_CLASSES,
    splits=('train',),
    published=10_000,
    archives=(*_CIFAR10_DVS_MD5,),
    source=(
      'Download the ten archives airplane.zip to truck.zip (8 GB together) '
      'from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671'
    ),
    md5=_CIFAR10_DVS_MD5,
    frames=FrameSpec(10, 'window', 10_000, 3.04),
    example='cifar10_airplane_0.aedat',
    pattern=re.compile(
      rf'(?:^|/)(?P<id>cifar10_(?P<class>{"|".join(_CIFAR_CLASSES)})_\d+)'
      r'\.aedat$'
    ),
    find_recordings=_find_by_path,
    read_events=formats.read_cifar10_dvs,
    default_split='tail',
  ),
  'n_mnist': EventSet(
    name='n_mnist',
    classes=tuple('0123456789'),
    published=70_000,
    sensor_size=formats.N_MNIST,
    archives=('Train.zip', 'Test.zip'),
    source=(
      'Download Train.zip and Test.zip (about 1.2 GB together) from '
      'https://www.garrickorchard.com/datasets/n-mnist'
    ),
    md5={
      'Train.zip': '20959b8e626244a1b502305a9e6e2031',
      'Test.zip': '69ca8762b2fe404d9b9bad1103e97832',
    },
    frames=FrameSpec(10, 'window', 30_000, 1.0),
    example='Train/0/00002.bin',
    pattern=re.compile(
      r'(?:^|/)(?P<id>(?P<split>Train|Test)/(?P<class>\d)/\d+)\.bin$'
    ),
    find_recordings=_find_by_path,
    read_events=formats.read_n_mnist,
    refused_augmentations=digits.REFUSED_AUGMENTATIONS,
  ),
}
