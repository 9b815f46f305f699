"""Recordings of event cameras: readers, frames, published data sets.

The functions, in the order in which a recording becomes training data:

    read_aedat(file, backwards='error') -> Events        # AEDAT 3.1 and 2.0
    read_cifar10_dvs(file, backwards='error') -> Events  # upright
    read_n_mnist(file, backwards='error') -> Events
    read_recording(path, sensor='') -> Events            # any of `SUFFIXES`
    recording_pieces(path, sensor='') -> Iterator[Events]
    frames_of_file(path, spec, sensor='') -> uint8 [t, h, w, 2]
    from_array(array, sensor_size) -> Events             # as tonic makes them
    to_frames(events, time_steps, window_us, ...) -> uint8 [t, h, w, 2]
    paper_frames(name, time_steps=None, ...) -> FrameSpec
    find_prepared(name, frames, data_dir='') -> folder or None
    prepare(name, frames=None, data_dir='', manual_dir='', ...) -> folder
    describe_prepared(folder) -> str
"""

from mlf_jax.data.events.any_recording import (
  SUFFIXES,
  frames_of_file,
  read_recording,
  recording_pieces,
)
from mlf_jax.data.events.catalogue import EVENT_SETS, EventSet
from mlf_jax.data.events.events import Events, from_array
from mlf_jax.data.events.formats import (
  BACKWARDS,
  read_aedat,
  read_cifar10_dvs,
  read_n_mnist,
)
from mlf_jax.data.events.frames import BINNINGS, FrameSpec, to_frames
from mlf_jax.data.events.loading import (
  describe_prepared,
  find_prepared,
  paper_frames,
  prepare,
)
from mlf_jax.data.events.recording_file import RecordingError

__all__ = [
  'BACKWARDS',
  'BINNINGS',
  'EVENT_SETS',
  'SUFFIXES',
  'EventSet',
  'Events',
  'FrameSpec',
  'RecordingError',
  'describe_prepared',
  'find_prepared',
  'frames_of_file',
  'from_array',
  'paper_frames',
  'prepare',
  'read_aedat',
  'read_cifar10_dvs',
  'read_n_mnist',
  'read_recording',
  'recording_pieces',
  'to_frames',
]
