"""Reads the samples of a file as a network takes them."""

import os
import pathlib

import numpy as np
from jaxtyping import Real

from mlf_jax.data.events.any_recording import SUFFIXES, frames_of_file
from mlf_jax.data.events.formats import parse_sensor
from mlf_jax.data.folders import images
from mlf_jax.errors import UserError
from mlf_jax.interop.trained import TrainedNetwork


def read_samples(
  path: str | os.PathLike, net: TrainedNetwork, sensor: str = ''
) -> Real[np.ndarray, 'batch *sample']:
  """Reads an image, a recording, or an array of samples.

  Args:
    path: an image of the size that the network takes (or of any size, if the
      run resizes its images), a recording in a format of `read_recording`, or
      a `.npy` file with one sample or a batch.
    net: the network.
    sensor: camera of a recording or 'HEIGHTxWIDTH' of its sensor; '' if the
      file says it, or for that of the run.

  Returns:
    Raw samples.

  Raises:
    UserError: the file cannot be read, or holds no samples for this network.
  """
  path, shape = pathlib.Path(path).expanduser(), net.preprocessing.sample_shape
  suffix = path.suffix.lower()
  if not path.is_file():
    raise UserError(f'{path} is no file')
  if suffix in images.SUFFIXES:
    return _read_image(path, shape, net.config.data.get('size', (0, 0)))
  if suffix == '.npy':
    samples = _read_array(path)
    if samples.dtype.names is None:
      one = samples.ndim == len(shape)
      batch = samples[np.newaxis] if one else samples
      if batch.shape[1:] != shape:
        raise UserError(
          f'{path} has shape {samples.shape}; the network takes samples of '
          f'shape {shape}, one or a batch of them'
        )
      return batch
  if suffix not in SUFFIXES:
    known = sorted({*images.SUFFIXES, *SUFFIXES})
    raise UserError(f'{path} is of no known kind: {", ".join(known)}')
  if net.frames is None:
    raise UserError(
      f'{path} is a recording, but the network takes images of shape {shape}'
    )
  sensor = parse_sensor(sensor or net.config.data.get('sensor', ''))
  frames = frames_of_file(path, net.frames, sensor)
  if frames.shape != shape:
    raise UserError(
      f'{path} has frames of shape {frames.shape}; the network takes {shape}'
    )
  return frames[np.newaxis]


def _read_image(path, shape, size):
  if len(shape) != 3 or shape[-1] not in (1, 3):
    raise UserError(
      f'{path} is an image, but the network takes samples of shape {shape}'
    )
  own, _ = images.read_header(path)
  if own != shape[:2] and not any(size):
    raise UserError(
      f'{path} is {own[0]} x {own[1]} pixels (height x width); the network '
      f'takes {shape[0]} x {shape[1]}'
    )
  return images.read_image(path, shape)[np.newaxis]


def _read_array(path):
  try:
    return np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'{path} cannot be read ({reason})') from error
