"""Samples decoded once into files, which every process then maps into memory.

Processes on one machine share the pages of a mapped file, a start reads nothing
but its header, and the samples may be larger than the memory.
"""

import contextlib
import hashlib
import math
import os
import pathlib
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import rich.console
import rich.progress
from jaxtyping import Int32, Shaped, UInt8

from mlf_jax.data import io

# Bytes at the begin and at the end of a file by which its content is known.
_EDGE = 1 << 16
# Seconds of decoding that are lost at most if it is killed.
_SAVE_EVERY_S = 3.0
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


# Returns the shape of all images, [n, ...], and the samples from a number on,
# batch after batch.
Decode = Callable[[int], tuple[tuple[int, ...], Iterable[Samples]]]


def decode_once(
  folder: pathlib.Path, name: str, key: str, decode: Decode
) -> Samples:
  """Opens the decoded samples of a split, decoding them first if needed.

  One process decodes while others wait for it, and the files are all there or
  none of them. If it is killed, the next call continues where it was. Where the
  files cannot be written, the samples are in memory.

  Args:
    folder: folder of decoded samples.
    name: name of the split in the folder.
    key: changes with the content that is decoded; samples under another key
      are removed.
    decode: decodes the samples from a number on; called again if a write has
      failed.

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
    ) as is_alone:
      samples = _open(place)  # Another process may have written them.
      if samples is None:
        _write(folder, name, place, decode, is_alone)
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
  folder: pathlib.Path,
  name: str,
  place: pathlib.Path,
  decode: Decode,
  is_alone: bool,
) -> None:
  """Writes the files to a folder that takes its name when all are whole."""
  # Without locks another process may be writing too.
  suffix = '.part' if is_alone else f'-{uuid.uuid4().hex}.part'
  part = place.with_name(place.name + suffix)
  for left_behind in folder.glob(f'{name}-*.part'):
    if left_behind != part:
      shutil.rmtree(left_behind, ignore_errors=True)
  part.mkdir(exist_ok=True)
  try:
    labels, ids = _so_far(part)
    start = sum(map(len, labels))
    shape, batches = decode(start)
    # Written, not mapped: on a full disk a write fails, a mapping crashes.
    with (part / 'images.npy').open('r+b' if start else 'wb') as file:
      np.lib.format.write_array_header_1_0(
        file, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
      )
      file.seek(start * math.prod(shape[1:]), os.SEEK_CUR)
      file.truncate()
      saved = time.monotonic()
      for batch in _with_progress(name, shape[0], start, batches):
        file.write(np.ascontiguousarray(batch.images).data)
        labels.append(batch.labels)
        ids.append(batch.ids)
        if time.monotonic() - saved >= _SAVE_EVERY_S:
          _save(part, file, labels, ids)
          saved = time.monotonic()
      _save(part, file, labels, ids)
    shutil.rmtree(place, ignore_errors=True)
    part.replace(place)
  except Exception:
    shutil.rmtree(part, ignore_errors=True)
    raise


def _save(part, file, labels, ids) -> None:
  """Makes sure that what is decoded so far outlives a crash."""
  file.flush()
  os.fsync(file.fileno())
  columns = {
    'ids.npy': _joined_ids(ids),
    # Last: as many samples as it has labels are there.
    'labels.npy': np.concatenate([np.empty(0, np.int32), *labels]),
  }
  for column, values in columns.items():

    def write(path, values=values):
      with path.open('wb') as to:
        np.save(to, values)

    io.write_atomically(part / column, write)


def _so_far(part) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
  """Labels and ids of the samples that a killed process has decoded."""
  try:
    labels = np.load(part / 'labels.npy')
    ids = np.load(part / 'ids.npy')[: len(labels)]
    return [labels], [ids if len(ids) else None]
  except (OSError, ValueError, EOFError):
    return [], []


def _joined_ids(ids) -> np.ndarray:
  return np.concatenate([np.empty(0, str), *(i for i in ids if i is not None)])


def _in_memory(name: str, decode: Decode) -> Samples:
  shape, batches = decode(0)
  images = np.empty(shape, np.uint8)
  labels, ids, count = [], [], 0
  for batch in _with_progress(name, shape[0], 0, batches):
    images[count : count + len(batch.labels)] = batch.images
    labels.append(batch.labels)
    ids.append(batch.ids)
    count += len(batch.labels)
  joined = _joined_ids(ids)
  return Samples(
    images, np.concatenate(labels), joined if len(joined) else None
  )


def _with_progress(name, total, start, batches) -> Iterator[Samples]:
  """Yields the batches and shows on standard error how many are done."""
  count = start
  with rich.progress.Progress(
    console=rich.console.Console(stderr=True)
  ) as progress:
    bar = progress.add_task(f'Decoding the {name} samples', total=total)
    progress.update(bar, completed=count)
    for batch in batches:
      yield batch
      count += len(batch.labels)
      progress.update(bar, completed=count)
  assert count == total, f'{count} samples where {total} should be'
