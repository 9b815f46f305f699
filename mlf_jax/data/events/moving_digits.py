"""Moving digits: real images, simulated events, no download at all.

The 1,797 digits of scikit-learn, real 8x8 images, move along three straight
saccades in front of a simulated event camera, as real images moved in front of
a real one for N-MNIST (G. Orchard et al., "Converting Static Image Datasets to
Spiking Neuromorphic Datasets Using Saccades", 2015). The events are the same
on every processor.
"""

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8

from mlf_jax.data.dataset import Dataset, Split
from mlf_jax.data.events.events import Events
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.events.simulated_camera import EventCamera
from mlf_jax.data.images import digits

CAMERA = EventCamera(
  sensor_size=(16, 16), threshold=0.2, mismatch=0.05, noise_hz=1.0
)
# Default frames: ten windows cover a recording, and 8x8 pixels instead of the
# sensor's 16x16 take a quarter of the work.
FRAMES = FrameSpec(10, 'window', 10_000, 2.0)
# Along an isosceles triangle and back to where it began.
_CORNERS = np.array([(-2.0, -2.0), (2.0, 0.0), (-2.0, 2.0), (-2.0, -2.0)])
_SACCADES_US = 99_000
_FRAME_US = 1_000
# Sensor pixels per digit pixel, along each side.
_ZOOM = 1.5
# Intensity of the black around a digit; its white is 1.
_BLACK = 0.2
# Digits filmed at once: the arrays of the simulation fit the cache.
_AT_ONCE = 64


def load(frames: FrameSpec) -> Dataset:
  """Loads frames of all recordings; the splits are those of `digits`.

  Args:
    frames: how the recordings become frames.

  Returns:
    Images uint8 [n, time, height, width, 2], counts of events, labels int32
    [n]; ids, the numbers of the digits in scikit-learn.
  """

  def frames_of(split):
    events, labels, numbers = _split_recordings(split)
    images = np.stack([frames.frames(recording) for recording in events])
    return Split(images, labels, numbers.astype(str))

  return Dataset(
    name='moving_digits',
    split_name=digits.SPLIT_NAME,
    num_classes=10,
    train=frames_of('train'),
    test=frames_of('test'),
    scale=1.0,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
  )


def recordings(
  split: str,
) -> tuple[list[Events], Int32[np.ndarray, 'recording']]:
  """Records the digits of one split, in scikit-learn's order.

  All recordings share the path, the camera and the thresholds of its pixels;
  each has its own noise. Nothing else is random, and the events are the same on
  every processor.

  Args:
    split: 'train' or 'test'.

  Returns:
    Recordings of 99 ms on 16x16 pixels, and their labels.
  """
  return _split_recordings(split)[:2]


def _split_recordings(split):
  """Events, labels and numbers of the digits of a split."""
  images, labels = digits.published_images()
  train, test = digits.split_members(labels)
  numbers = {'train': train, 'test': test}[split]
  return record(images[numbers], numbers), labels[numbers], numbers


def record(
  images: UInt8[np.ndarray, 'digit 8 8'],
  noise_seeds: Int64[np.ndarray, 'digit'],
) -> list[Events]:
  """Moves images in front of the camera.

  Args:
    images: values 0..16.
    noise_seeds: seed of the noise in each recording.
  """
  times = np.arange(0, _SACCADES_US + 1, _FRAME_US)
  events = []
  for first in range(0, len(images), _AT_ONCE):
    part = slice(first, first + _AT_ONCE)
    videos = _film(images[part], _path(times))
    events += CAMERA.record(videos, times, noise_seeds[part])
  return events


def _path(times) -> Float[np.ndarray, 'time 2']:
  """Offset (row, column) of a digit from the centre, in sensor pixels."""
  corner_times = np.linspace(0, _SACCADES_US, len(_CORNERS))
  return np.stack(
    [np.interp(times, corner_times, along) for along in _CORNERS.T], axis=-1
  )


def _film(images, path) -> Float64[np.ndarray, 'time digit height width']:
  """Intensities of moving digits, interpolated bilinearly."""
  rows, columns = (
    _bilinear(offset, side)[:, np.newaxis]
    for offset, side in zip(path.T, CAMERA.sensor_size, strict=True)
  )
  white = rows @ (images / digits.SCALE) @ columns.swapaxes(-1, -2)
  return _BLACK + (1 - _BLACK) * white


def _bilinear(offset, side) -> Float64[np.ndarray, 'time side 8']:
  """Weights with which digit pixels contribute to sensor pixels of a side."""
  pixels = np.arange(side) - (side - 1) / 2 - offset[:, np.newaxis]
  distance = pixels[..., np.newaxis] / _ZOOM + 3.5 - np.arange(8)
  return np.maximum(0, 1 - abs(distance))
