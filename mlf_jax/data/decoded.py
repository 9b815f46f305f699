"""Samples decoded once into files, which every process then maps into memory.

Processes on one machine share the pages of a mapped file, a start reads nothing
but its header, and the samples may be larger than the memory.
"""

import contextlib
import hashlib
import pathlib
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import rich.console
import rich.progress
from jaxtyping import Int32, Shaped, UInt8

from mlf_jax.data import io

# Bytes at the begin and at the end of a file by which its content is known.
_EDGE = 1 << 16
# What comes of it where the files cannot be written.
_OTHERWISE = 'the decoded samples are kept in memory'


class Samples(NamedTuple):
  """Samples of a data set, in order.

  Attributes:
    images: static images or frames.
    labels: class of each sample.
    ids: name of each sample, str; None if they have none.
  """

  images: UInt8[np.ndarray, 'n *sample']
  labels: Int32[np.ndarray, 'n']
  ids: Shaped[np.ndarray, 'n'] | None = None


# Returns the shape of all images, [n, ...], and the samples, batch after batch.
Decode = Callable[[], tuple[tuple[int, ...], Iterable[Samples]]]


def decode_once(
  folder: pathlib.Path, name: str, key: str, decode: Decode
) -> Samples:
  """Opens the decoded samples of a split, decoding them first if needed.

  One process decodes while others wait for it, and the files are all there or
  none of them. Where they cannot be written, the samples are in memory.

  Args:
    folder: folder of decoded samples.
    name: name of the split in the folder.
    key: changes with the content that is decoded; samples under another key
      are removed.
    decode: decodes the samples; called again if a write has failed.

  Returns:
    The samples; `images` is a read-only `np.memmap`, or in memory.
  """
  place = folder / f'{name}-{key}'
  samples = _open(place)
  if samples is not None:
    return samples
  try:
    with io.exclusive(
      folder,
      'the folder',
      'decodes data',
      _OTHERWISE,
      wait=True,
      needs_locks=False,
    ):
      samples = _open(place)  # Another process may have written them.
      if samples is None:
        _write(folder, name, place, decode)
        samples = _open(place)
        for stale in folder.glob(f'{name}-*'):
          if stale != place:
            shutil.rmtree(stale, ignore_errors=True)
  except io.ReservationError as error:
    warnings.warn(str(error), stacklevel=2)
  except OSError as error:
    warnings.warn(
      f'cannot write to the folder {folder}: {error.strerror or error}; '
      f'{_OTHERWISE}',
      stacklevel=2,
    )
  return _in_memory(name, decode) if samples is None else samples


def files_key(folder: pathlib.Path) -> str:
  """Key for `decode_once` of the files in a folder, 16 hexadecimal digits.

  It is made of their names, sizes, first and last bytes, so that a copy of the
  folder has the same key.
  """
  digest = hashlib.sha256()
  for path in sorted(folder.iterdir()):
    if path.is_file():
      with path.open('rb') as file:
        size = path.stat().st_size
        digest.update(f'\n{path.name} {size} '.encode())
        digest.update(file.read(_EDGE))
        file.seek(max(_EDGE, size - _EDGE))
        digest.update(file.read(_EDGE))
  return digest.hexdigest()[:16]


def _open(place: pathlib.Path) -> Samples | None:
  """Maps the images; None unless all files are there and whole."""
  path = place / 'images.npy'
  # A damaged header may raise nearly anything.
  with contextlib.suppress(Exception):
    images = np.load(path, mmap_mode='r')
    labels, ids = np.load(place / 'labels.npy'), np.load(place / 'ids.npy')
    is_whole = (
      path.stat().st_size == images.offset + images.nbytes
      and len(labels) == len(images)
      and len(ids) in (0, len(images))
    )
    if is_whole:
      return Samples(images, labels, ids if len(ids) else None)
  return None


def _write(
  folder: pathlib.Path, name: str, place: pathlib.Path, decode: Decode
) -> None:
  """Writes the files to a folder that takes its name when all are whole."""
  for left_behind in folder.glob(f'{name}-*.part'):
    shutil.rmtree(left_behind, ignore_errors=True)
  part = folder / f'{name}-{uuid.uuid4().hex}.part'
  part.mkdir()
  try:
    # Written, not mapped: on a full disk a write fails, a mapping crashes.
    with (part / 'images.npy').open('wb') as file:
      shape, batches = decode()
      np.lib.format.write_array_header_1_0(
        file, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
      )
      labels, ids = _collect(
        name,
        shape,
        batches,
        lambda images, start: file.write(np.ascontiguousarray(images).data),
      )
    np.save(part / 'labels.npy', labels)
    np.save(part / 'ids.npy', np.empty(0, str) if ids is None else ids)
    for path in part.iterdir():
      io.flush_to_disk(path)
    shutil.rmtree(place, ignore_errors=True)
    part.replace(place)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _in_memory(name: str, decode: Decode) -> Samples:
  shape, batches = decode()
  images = np.empty(shape, np.uint8)

  def put(batch, start):
    images[start : start + len(batch)] = batch

  return Samples(images, *_collect(name, shape, batches, put))


def _collect(name, shape, batches, put):
  """Puts the images batch after batch; returns the labels and the ids."""
  labels, ids, count = [], [], 0
  with rich.progress.Progress(
    console=rich.console.Console(stderr=True)
  ) as progress:
    bar = progress.add_task(f'Decoding the {name} samples', total=shape[0])
    for batch in batches:
      put(batch.images, count)
      labels.append(batch.labels)
      ids.append(batch.ids)
      count += len(batch.labels)
      progress.update(bar, completed=count)
  assert count == shape[0], f'{count} samples where {shape[0]} should be'
  has_ids = ids and ids[0] is not None
  return np.concatenate(labels), np.concatenate(ids) if has_ids else None
