"""Reads the float64 reference arrays under `tests/golden`."""

import pathlib

import numpy as np

_FOLDER = pathlib.Path(__file__).parent / 'golden'


def load(name):
  """Arrays of `tests/golden/NAME.npz`."""
  with np.load(_FOLDER / f'{name}.npz') as arrays:
    return dict(arrays)


def section(arrays, prefix):
  """The arrays whose name starts with `prefix/`, without it."""
  return {
    k.removeprefix(prefix + '/'): v
    for k, v in arrays.items()
    if k.startswith(prefix + '/')
  }


def nhwc(x):
  """[..., channel, height, width] to [..., height, width, channel]."""
  return np.moveaxis(x, -3, -1)
