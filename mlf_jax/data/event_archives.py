"""Files of a published data set, in folders and in archives, by name.

Nothing that an archive says about where a file belongs is believed: a member
that would lie outside, or that is a link, is an error.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mlf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Member:
  """One file, on its own or within a zip archive.

  Attributes:
    name: its path within the folder or the archive, with '/'.
    size: in bytes.
    stamp: changes with the content: the time of its last change, or a
      checksum.
    path: the file, or the archive.
    archived: whether `path` is the archive.
  """

  name: str
  size: int
  stamp: int
  path: pathlib.Path
  archived: bool = False

  def __str__(self) -> str:
    """How messages call it."""
    return f'{self.path}: {self.name}' if self.archived else str(self.path)

  @contextlib.contextmanager
  def open(self) -> Iterator[BinaryIO]:
    """Opens it for reading; its errors then name it as `str` does.

    Raises:
      UserError: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
      try:
        if self.archived:
          file = stack.enter_context(_zip_file(self.path).open(self.name))
          file.name = str(self)
        else:
          # The name of a file opened by a string is a string.
          file = stack.enter_context(open(os.fspath(self.path), 'rb'))
      except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f'{self} cannot be opened ({error})') from error
      yield file


@functools.lru_cache(maxsize=16)
def _zip_file(path: pathlib.Path) -> zipfile.ZipFile:
  # Kept open: reading the list of tens of thousands of members takes a second.
  return zipfile.ZipFile(path)


def in_folder(folder: pathlib.Path) -> list[Member]:
  """The files under a folder, at any depth."""
  members = []
  for directory, _, files in os.walk(folder):
    for file in files:
      path = pathlib.Path(directory, file)
      with contextlib.suppress(OSError):  # A link that leads nowhere.
        status = path.stat()
        name = path.relative_to(folder).as_posix()
        members.append(Member(name, status.st_size, status.st_mtime_ns, path))
  return members


def in_zip(path: pathlib.Path) -> list[Member]:
  """The files in a zip archive, which is not extracted.

  Raises:
    UserError: it is damaged, or holds what no archive of data holds.
  """
  members = []
  try:
    with zipfile.ZipFile(path) as archive:
      for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        _require_inside(path, info.filename, kind == stat.S_IFLNK)
        if not info.is_dir():
          members.append(
            Member(info.filename, info.file_size, info.CRC, path, True)
          )
  except (OSError, zipfile.BadZipFile) as error:
    raise UserError(
      f'{path} cannot be read as a zip archive ({error}): download it again'
    ) from error
  return members


def extract(
  path: pathlib.Path, folder: pathlib.Path, wanted: Callable[[str], bool]
) -> None:
  """Extracts files of a .tar.gz archive; goes on where it was stopped.

  A file takes its name when it is whole, and is not written again.

  Args:
    path: the archive.
    folder: where the files go, made if need be.
    wanted: whether a member of that name is extracted.

  Raises:
    UserError: the archive is damaged, or holds what no archive of data holds,
      or the disk is full.
  """
  try:
    status = path.stat()
    source = f'{path.name} {status.st_size} {status.st_mtime_ns}'
    begun, done = folder / 'begun', folder / 'done'
    if not begun.exists() or begun.read_text() != source:
      shutil.rmtree(folder, ignore_errors=True)  # It is of another archive.
      folder.mkdir(parents=True)
      begun.write_text(source)
    if done.exists():
      return
    # The published archives more or less double.
    needed, free = 2 * status.st_size, shutil.disk_usage(folder).free
    if free < needed:
      raise UserError(
        f'{path.name} needs about {needed / 1e9:.1f} GB to be extracted, but '
        f'{folder} has {free / 1e9:.1f} GB left: name another folder for '
        'prepared data, or extract the archive yourself and name its folder'
      )
    # '|' reads the stream once, from front to back.
    with tarfile.open(path, 'r|gz') as archive:
      for member in archive:
        link = member.issym() or member.islnk()
        _require_inside(path, member.name, link)
        if member.isreg() and wanted(member.name):
          _extract_member(archive, member, folder / member.name)
    done.touch()
  except (tarfile.TarError, EOFError, zlib.error) as error:
    raise UserError(
      f'{path} cannot be read as a .tar.gz archive ({error}): download it again'
    ) from error
  except OSError as error:
    raise UserError(f'{path} cannot be extracted ({error})') from error


def _extract_member(archive, member, path):
  if path.exists() and path.stat().st_size == member.size:
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  with part.open('wb') as file:
    shutil.copyfileobj(archive.extractfile(member), file)
  part.replace(path)


def _require_inside(path: pathlib.Path, name: str, link: bool) -> None:
  """Raises unless a member of an archive is a file within it."""
  parts = pathlib.PurePosixPath(name.replace('\\', '/')).parts
  if link or '..' in parts or name.startswith(('/', '\\')):
    fault = 'is a link' if link else 'would lie outside of it'
    raise UserError(
      f'{path}: the member {name!r} {fault}; this is not the published archive'
    )
