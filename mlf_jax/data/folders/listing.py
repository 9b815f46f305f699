"""Finds the files of a folder whose subfolders are classes."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Int32

from mlf_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
  """Files of one split, class after class.

  Attributes:
    paths: the files.
    names: their names below the folder of the split, such as 'cat/1.png'.
    labels: class of each file.
    key: 16 hexadecimal digits that change if a file is changed, added, renamed
      or removed.
  """

  paths: list[pathlib.Path]
  names: list[str]
  labels: Int32[np.ndarray, 'n']
  key: str


def find_files(
  root: pathlib.Path, kind: str, suffixes_of: Mapping[str, Collection[str]]
) -> tuple[tuple[str, ...], dict[str, Listing]]:
  """Lists `root/train/CLASS/*` and, if it is there, `root/test/CLASS/*`.

  Files in folders below a class belong to it. Hidden files are left out, and
  files with other suffixes or in no class too, with a warning. Another warning
  is of a class that the test folder lacks.

  Args:
    root: the folder.
    kind: what to list, 'images' or 'recordings'.
    suffixes_of: suffixes of the files of each kind, in lower case, with dots.

  Returns:
    The names of the classes, which are those of the folders below
    `root/train`, sorted, and the listings of 'train' and 'test'.

  Raises:
    UserError: a folder is missing or empty, or only the test folder has a
      class.
  """
  if not root.is_dir():
    raise UserError(f'config.data.dir {root} is no folder, and no .npz file')
  class_names, suffixes = _subfolders(root / 'train'), suffixes_of[kind]
  if not class_names:
    raise UserError(
      f'{root / "train"} has no folders of classes: {kind} belong to '
      f'{root / "train" / "CLASS"}, one folder per class'
    )
  listings, others, stray = {}, [], []
  for part in ('train', 'test'):
    if not (root / part).is_dir():
      continue
    unknown = set(_subfolders(root / part)) - set(class_names)
    if unknown:
      raise UserError(
        f'{root / part} has the class {min(unknown)!r}, but {root / "train"} '
        f'has none of this name'
      )
    listings[part] = _list(root / part, class_names, suffixes, others)
    found = np.bincount(listings[part].labels, minlength=len(class_names))
    if not found.all() and part == 'train':
      empty = root / part / class_names[np.argmin(found)]
      hint = ''
      for other, of_other in suffixes_of.items():
        if any(path.suffix.lower() in of_other for path in others):
          variant = '' if other == 'images' else f':{other}'
          hint = f', but {other}: use --config=folder{variant}'
      raise UserError(
        f'{empty} holds no {kind} ({", ".join(sorted(suffixes))}){hint}'
      )
    if not found.any():
      raise UserError(f'{root / part} holds no {kind}')
    if not found.all():
      warnings.warn(
        f'{root / part} holds no {kind} of {np.sum(found == 0)} of '
        f'{len(class_names)} classes, such as '
        f'{class_names[np.argmin(found)]!r}',
        stacklevel=2,
      )
    stray += (
      path
      for path in sorted((root / part).iterdir())
      if path.is_file() and not path.name.startswith('.')
    )
  if others:
    warnings.warn(
      f'{len(others)} files in {root} are left out since they are no {kind}, '
      f'such as {others[0]}',
      stacklevel=2,
    )
  if stray:
    warnings.warn(
      f'{len(stray)} files in {root} are left out since they are in no folder '
      f'of a class, such as {stray[0]}',
      stacklevel=2,
    )
  return class_names, listings


def _list(folder, class_names, suffixes, others) -> Listing:
  paths, names, labels, digest = [], [], [], hashlib.sha256()
  for label, class_name in enumerate(class_names):
    for path in sorted((folder / class_name).rglob('*')):
      name = path.relative_to(folder).as_posix()
      if '/.' in name or not path.is_file():
        continue
      if path.suffix.lower() not in suffixes:
        others.append(path)
        continue
      status = path.stat()
      digest.update(f'{name} {status.st_size} {status.st_mtime_ns}\n'.encode())
      paths.append(path)
      names.append(name)
      labels.append(label)
  key = digest.hexdigest()[:16]
  return Listing(paths, names, np.array(labels, np.int32), key)


def _subfolders(folder: pathlib.Path) -> tuple[str, ...]:
  """Names of the folders in a folder, sorted; none if it is not there."""
  if not folder.is_dir():
    return ()
  inside = (path for path in folder.iterdir() if path.is_dir())
  return tuple(sorted(p.name for p in inside if not p.name.startswith('.')))
