"""Data sets of a person's own files, decoded at first use and then mapped."""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import warnings
from collections.abc import Callable

import numpy as np

from mlf_jax.data import decoded, io, splits
from mlf_jax.data.dataset import Dataset, LoadOptions, Split, from_arrays
from mlf_jax.data.events.formats import parse_sensor
from mlf_jax.data.folders import arrays, images, listing, recordings
from mlf_jax.errors import UserError

# Where there is no test folder, this part of each class is the test set.
TEST_SHARE = 0.2
# The networks pool to one pixel after 8 x 8 to 32 x 32; more costs much time.
_LARGE_SIDE = 160
_SUFFIXES = {'images': images.SUFFIXES, 'recordings': recordings.SUFFIXES}


def load_images(options: LoadOptions) -> Dataset:
  """Loads images of `DIR/train/CLASS/*`, or arrays of images in a `.npz` file.

  Args:
    options: `data_dir` is DIR or the file, `size` is what images are resized
      to, and `split_name` the division if there are no test samples.

  Returns:
    Images uint8 [n, height, width, channel], normalised by mean and standard
    deviation of the training images; classes sorted by their names.

  Raises:
    UserError: a file or folder is missing, cannot be read, or does not fit to
      the others.
  """
  size = options.size
  if len(size) != 2 or bool(size[0]) != bool(size[1]):
    raise UserError(
      f'config.data.size must be (height, width), both or none 0, got '
      f'{options.size}'
    )

  def prepare(listings):
    shape = images.sample_shape(listings, options.size)
    _warn_of_large(shape)
    return shape, lambda files, start: images.decode(files, shape, start)

  return _load(options, 'images', repr(options.size), prepare)


def load_recordings(options: LoadOptions) -> Dataset:
  """Loads frames of recordings, or arrays of frames in a `.npz` file.

  Args:
    options: `data_dir` is DIR of `DIR/train/CLASS/*`, or the file; `frames` is
      how recordings become frames, `sensor` the name of the sensor or its
      'HEIGHTxWIDTH', '' if the files say it, and `split_name` the division if
      there are no test samples.

  Returns:
    Frames uint8 [n, time, height, width, 2]; classes sorted by their names.

  Raises:
    UserError: a file or folder is missing, cannot be read, or does not fit to
      the others.
  """
  frames, sensor = options.frames, parse_sensor(options.sensor)

  def prepare(listings):
    shape = recordings.sample_shape(listings['train'], frames, sensor)
    _warn_of_large(shape)
    return shape, lambda files, start: recordings.decode(
      files, shape, frames, sensor, start
    )

  settings = repr((frames, sensor))
  return _load(options, 'recordings', settings, prepare)


def _load(
  options: LoadOptions, kind: str, settings: str, prepare: Callable
) -> Dataset:
  """Loads a data set of files of one kind.

  Args:
    options: see `load_images` and `load_recordings`.
    kind: what they hold, 'images' or 'recordings'.
    settings: text that changes if the files are decoded in another way.
    prepare: maps the listings of the splits to the shape of a sample and to a
      function that decodes a listing from a number on.

  Returns:
    The data set.
  """
  if not options.data_dir:
    raise UserError(
      f'config.data.dir must name the folder of your {kind}: '
      '--config.data.dir=DIR for DIR/train/CLASS/* and DIR/test/CLASS/*, or '
      'for a .npz file'
    )
  root = pathlib.Path(options.data_dir).expanduser()
  archive = arrays.find_arrays(root)
  if archive is not None:
    folder, name = archive.parent / 'decoded', archive.stem
    parts, key = _of_arrays(archive, folder, kind)
    class_names = ()
  else:
    folder, name = root / 'decoded', root.resolve().name
    class_names, listings = listing.find_files(root, kind, _SUFFIXES)
    parts = _of_files(listings, folder, settings, prepare)
    key = ''.join(files.key for files in listings.values())
  split_name = 'given'
  if 'test' not in parts:
    split_name = splits.canonical_name(options.split_name)
    is_test = splits.test_mask(split_name, parts['train'].labels, TEST_SHARE)
    parts = {
      'train': splits.chosen(parts['train'], ~is_test),
      'test': splits.chosen(parts['train'], is_test),
    }
    split_name = f'{split_name}-{TEST_SHARE:.0%}'
  try:
    dataset = _with_known_scaling(
      parts, class_names, folder, f'{key} {settings} {split_name}'
    )
  except UserError as error:
    # Only arrays of a .npz file can be wrong here: other files were checked
    # when they were decoded.
    text = re.sub(r'(train|test)_(images|labels)', _name_in_file, str(error))
    text = text.removesuffix(', or pass num_classes')
    raise UserError(f'{archive or root}: {text}') from None
  train_labels = parts['train'].labels
  counts = np.bincount(train_labels, minlength=dataset.num_classes)
  if not counts.all():
    warnings.warn(
      f'class {np.argmin(counts)} of {dataset.num_classes} has no training '
      'samples; labels count from 0',
      stacklevel=2,
    )
  return dataclasses.replace(dataset, **parts, name=name, split_name=split_name)


def _name_in_file(match):
  """Name of an array in a `.npz` file for that of an argument."""
  return ('x_' if match[2] == 'images' else 'y_') + match[1]


def _of_files(listings, folder, settings, prepare) -> dict[str, Split]:
  """The splits of files in folders."""
  digest = hashlib.sha256(settings.encode())
  for files in listings.values():
    digest.update(files.key.encode())
  # All files are looked at if one of the splits has to be decoded.
  prepared = []

  def decode(files, start):
    if not prepared:
      prepared.extend(prepare(listings))
    shape, decode_from = prepared
    return (len(files.paths), *shape), decode_from(files, start)

  return {
    part: Split(
      *decoded.decode_once(
        folder,
        part,
        digest.hexdigest()[:16],
        lambda start, files=files: decode(files, start),
      )
    )
    for part, files in listings.items()
  }


def _of_arrays(archive, folder, kind) -> tuple[dict[str, Split], str]:
  """The splits of arrays in a file, and the key of the file."""
  opened, key = arrays.open_arrays(archive, folder)
  parts = {}
  for part, (values, labels) in opened.items():
    if kind == 'images' and values.ndim == 3:
      values = values[..., np.newaxis]
    rank, other = (4, 'recordings') if kind == 'images' else (5, 'images')
    if values.ndim != rank:
      hint = f': use --config=folder:{other}' if values.ndim == 9 - rank else ''
      raise UserError(
        f'x_{part} in {archive} has shape {values.shape}, which are no '
        f'{"images" if rank == 4 else "frames"}{hint}'
      )
    parts[part] = Split(values, labels)
  return parts, key


def _with_known_scaling(parts, class_names, folder, key) -> Dataset:
  """Makes the data set; mean and standard deviation are computed once."""
  name = hashlib.sha256(key.encode()).hexdigest()[:16]
  path, scaling = folder / f'scaling-{name}.npy', {}
  with contextlib.suppress(OSError, ValueError):
    mean, std = np.load(path)
    scaling = {'mean': mean, 'std': std}
  train, test = parts['train'], parts['test']
  dataset = from_arrays(
    train.images,
    train.labels,
    test.images,
    test.labels,
    num_classes=len(class_names) or None,
    class_names=class_names,
    **scaling,
  )
  if not scaling:

    def write(part):
      with part.open('wb') as file:
        np.save(file, [dataset.mean, dataset.std])

    with contextlib.suppress(OSError):  # Then it is computed again.
      io.write_atomically(path, write)
  return dataset


def _warn_of_large(shape) -> None:
  height, width = shape[-3:-1]
  if max(height, width) > _LARGE_SIDE:
    how = '--config.data.size="(HEIGHT, WIDTH)"'
    if len(shape) == 4:
      how = '--config.data.downsample or --config.data.crop'
    warnings.warn(
      f'samples are {height} x {width} pixels; the networks are made for 28 to '
      f'128 a side, and more takes much time and memory: {how} makes them '
      'smaller',
      stacklevel=2,
    )
