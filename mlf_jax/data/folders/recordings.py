"""Makes frames of recording files."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlf_jax.data.decoded import Samples
from mlf_jax.data.events.any_recording import SUFFIXES as _SUFFIXES
from mlf_jax.data.events.any_recording import frames_of_file, recording_pieces
from mlf_jax.data.events.formats import Sensor
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.folders.listing import Listing
from mlf_jax.errors import UserError

SUFFIXES = frozenset(_SUFFIXES)
# Recordings whose frames are stored at once.
_BATCH = 16
_MOST_BYTES = 10**9


def sample_shape(
  listing: Listing, frames: FrameSpec, sensor: Sensor
) -> tuple[int, int, int, int]:
  """Shape of the frames of the first recording, (time, height, width, 2).

  Raises:
    UserError: the file cannot be read, its sensor is not known, or the frames
      of one recording would take more than a gigabyte.
  """
  path = listing.paths[0]
  piece = next(recording_pieces(path, sensor))
  shape = frames.shape(piece.sensor_size)
  if math.prod(shape) > _MOST_BYTES:
    raise UserError(
      f'the frames of {path} would take {math.prod(shape) / 1e9:.0f} GB, '
      f'{shape[1]} x {shape[2]} pixels at {shape[0]} timesteps: '
      '--config.data.downsample or --config.data.crop makes them smaller'
    )
  return shape


def decode(
  listing: Listing,
  shape: tuple[int, int, int, int],
  frames: FrameSpec,
  sensor: Sensor,
  start: int,
) -> Iterator[Samples]:
  """Makes the frames of a listing from a number on, batch after batch.

  Args:
    listing: the files.
    shape: (time, height, width, 2) that all frames must have.
    frames: how recordings become frames.
    sensor: size or name of the sensor; '' if the files say it.
    start: number of the first recording.

  Raises:
    UserError: a file cannot be read, or has another sensor than the others.
  """

  def read(path):
    counts = frames_of_file(path, frames, sensor)
    if counts.shape != shape:
      raise UserError(
        f'the frames of {path} are {counts.shape[1]} x {counts.shape[2]} '
        f'pixels, and those of others {shape[1]} x {shape[2]}: all recordings '
        'must come from sensors of one size'
      )
    return counts

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    for begin in range(start, len(listing.paths), _BATCH):
      part = slice(begin, begin + _BATCH)
      counts = np.stack([*pool.map(read, listing.paths[part])])
      yield Samples(counts, listing.labels[part], np.array(listing.names[part]))
