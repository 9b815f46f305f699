"""Decodes image files of one size, or resized to one."""

import math
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from mlf_jax.data.decoded import Samples
from mlf_jax.data.folders.listing import Listing
from mlf_jax.errors import UserError

SUFFIXES = frozenset(
  ['.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff']
)
# Bytes of images that are decoded before they are stored.
_BATCH_BYTES = 1 << 22
_GREY = {'1', 'L', 'LA'}
# What Pillow raises on files that are damaged or no images.
_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def sample_shape(
  listings: dict[str, Listing], size: tuple[int, int]
) -> tuple[int, int, int]:
  """Shape that all images have, or are brought to.

  Args:
    listings: the files.
    size: (height, width) that they are resized to; (0, 0) if all have one size.

  Returns:
    (height, width, channel), with one channel if all images are grey.

  Raises:
    UserError: a file cannot be read, or their sizes differ.
  """
  first, shape, is_grey = None, size, True
  for listing in listings.values():
    with ThreadPoolExecutor() as pool:
      headers = pool.map(read_header, listing.paths)
      for path, (own, has_no_color) in zip(listing.paths, headers, strict=True):
        is_grey &= has_no_color
        if first is None:
          first, shape = path, shape if any(shape) else own
        if own != shape and not any(size):
          raise UserError(
            f'{path} is {own[0]} x {own[1]} pixels (height x width) and '
            f'{first} {shape[0]} x {shape[1]}: with '
            '--config.data.size="(HEIGHT, WIDTH)" all are resized'
          )
  return (*shape, 1 if is_grey else 3)


def decode(
  listing: Listing, shape: tuple[int, int, int], start: int
) -> Iterator[Samples]:
  """Decodes the images of a listing from a number on, batch after batch.

  Args:
    listing: the files.
    shape: (height, width, channel) that they get.
    start: number of the first image.

  Raises:
    UserError: a file cannot be read.
  """
  batch = max(1, _BATCH_BYTES // math.prod(shape))
  with ThreadPoolExecutor() as pool:
    for begin in range(start, len(listing.paths), batch):
      part = slice(begin, begin + batch)
      images = pool.map(
        lambda path: read_image(path, shape), listing.paths[part]
      )
      yield Samples(
        np.stack([*images]), listing.labels[part], np.array(listing.names[part])
      )


def read_header(path: pathlib.Path) -> tuple[tuple[int, int], bool]:
  """(height, width) of an image, and whether it is grey.

  Raises:
    UserError: it cannot be read, or has more than 8 bits per colour.
  """
  try:
    with Image.open(path) as image:
      mode = image.mode
      # Pillow would cut 16 bits per colour to 8 without a word. The next call
      # may decode the image, after which its tiles are gone.
      has_16_bits = mode.startswith(('I', 'F')) or ';16' in repr(image.tile)
      # The camera may have been turned; only the header tells.
      is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
      size = image.size if is_turned else image.size[::-1]
  except _ERRORS as error:
    raise _cannot_read(path, error) from error
  if has_16_bits:
    raise UserError(
      f'{path} has more than 8 bits per colour (mode {mode}): convert it to 8 '
      'bits, or hand arrays over with data.from_arrays'
    )
  return size, mode in _GREY


def read_image(
  path: pathlib.Path, shape
) -> UInt8[np.ndarray, 'height width c']:
  """Decodes an image, upright and in the given shape.

  Args:
    path: the file.
    shape: (height, width, channel), with 1 channel or 3.

  Raises:
    UserError: it cannot be read.
  """
  height, width, channels = shape
  try:
    with Image.open(path) as image:
      image = ImageOps.exif_transpose(image)
      image = image.convert('L' if channels == 1 else 'RGB')
      if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
      return np.asarray(image).reshape(shape)
  except _ERRORS as error:
    raise _cannot_read(path, error) from error


def _cannot_read(path, error) -> UserError:
  reason = ' '.join(str(getattr(error, 'strerror', None) or error).split())
  return UserError(f'{path} cannot be read as an image ({reason})')
