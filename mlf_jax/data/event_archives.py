"""Files of a published data set, in folders and in archives, by name.

Nothing that an archive says about where a file belongs is believed: a member
that would lie outside, or that is a link, is an error.
"""

import contextlib
import dataclasses
import errno
import functools
import gzip
import os
import pathlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mlf_jax.data.event_source import DAMAGED
from mlf_jax.errors import UserError

# Folder that a preparation works in.
PREPARING = 'preparing'

# zipfile adds RuntimeError for what it cannot decode: encryption, a later
# version of the format.
_ZIP_DAMAGED = (*DAMAGED, RuntimeError)

# What the machine lacks, or has lost since, is no fault of a file.
_MACHINE = (
  errno.EMFILE,
  errno.ENFILE,
  errno.ENOMEM,
  errno.ENOENT,
  errno.ESTALE,
)


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
      OSError: the machine can open no more files, or has lost this one.
    """
    with contextlib.ExitStack() as stack:
      try:
        if self.archived:
          status = self.path.stat()
          archive = _zip_file(self.path, status.st_size, status.st_mtime_ns)
          file = stack.enter_context(archive.open(self.name))
          file.name = str(self)
        else:
          # The name of a file opened by a string is a string.
          file = stack.enter_context(open(os.fspath(self.path), 'rb'))
      except _ZIP_DAMAGED as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
          raise
        raise UserError(f'{self} cannot be opened ({error})') from error
      yield file

  def read_lines(self) -> list[str]:
    """Reads it as text.

    Raises:
      UserError: it cannot be read.
    """
    with self.open() as file:
      try:
        content = file.read()
      except DAMAGED as error:
        raise UserError(f'{self} cannot be read ({error})') from error
    return content.decode('utf-8-sig', 'replace').splitlines()


# Kept open: reading the list of tens of thousands of members takes a second.
@functools.lru_cache(maxsize=16)
def _zip_file(path: pathlib.Path, size: int, changed: int) -> zipfile.ZipFile:
  del size, changed  # A file that was replaced is another file.
  return zipfile.ZipFile(path)


def in_folder(folder: pathlib.Path) -> tuple[list[Member], list[str]]:
  """The files under a folder, at any depth, links followed.

  What a preparation has extracted so far is not looked into.

  Returns:
    The files in the order of their paths, and the names of links that lead
    nowhere.

  Raises:
    UserError: a folder cannot be read.
  """
  members, broken = [], []

  def fail(error):
    raise UserError(f'{error.filename} cannot be read ({error.strerror})')

  for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
    folders.sort()
    path = pathlib.Path(place)
    prepares = path.name == PREPARING and '.lock' in files
    if (prepares and path != folder) or _is_circle(path, folder):
      folders.clear()
      continue
    for file in sorted(files):
      path = pathlib.Path(place, file)
      name = path.relative_to(folder).as_posix()
      try:
        status = path.stat()
      except OSError:
        broken.append(name)
      else:
        members.append(Member(name, status.st_size, status.st_mtime_ns, path))
  return members, broken


def _is_circle(path: pathlib.Path, folder: pathlib.Path) -> bool:
  """Whether links have led from `folder` to a folder above `path`."""
  above = list(path.parents)[: len(path.parts) - len(folder.parts)]
  real = os.path.realpath(path)
  return any(os.path.realpath(parent) == real for parent in above)


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
  except UserError:
    raise
  except (*_ZIP_DAMAGED, ValueError) as error:
    raise UserError(
      f'{path} cannot be read as a zip archive ({error}): download it again'
    ) from error
  return members


def extract(
  path: pathlib.Path, folder: pathlib.Path, wanted: Callable[[str], bool]
) -> pathlib.Path:
  """Extracts files of a .tar.gz archive; goes on where it was stopped.

  A file takes its name when it is whole, and is not written again.

  Args:
    path: the archive.
    folder: where the files go, made if need be.
    wanted: whether a member of that name is extracted.

  Returns:
    The folder that holds the files and nothing else.

  Raises:
    UserError: the archive is damaged, or holds what no archive of data holds,
      or the disk is full.
  """
  try:
    status = path.stat()
    source = f'{path.name} {status.st_size} {status.st_mtime_ns}'
    begun, done, files = folder / 'begun', folder / 'done', folder / 'files'
    if not begun.exists() or begun.read_text() != source:
      shutil.rmtree(folder, ignore_errors=True)  # It is of another archive.
      files.mkdir(parents=True)
      begun.write_text(source)
    if done.exists():
      return files
    # The published archives more or less double.
    needed, free = 2 * status.st_size, shutil.disk_usage(folder).free
    there = sum(member.size for member in in_folder(files)[0])
    if free + there < needed:
      raise UserError(
        f'{path.name} needs about {needed / 1e9:.1f} GB to be extracted, but '
        f'{folder} has {free / 1e9:.1f} GB left: name another folder for '
        'prepared data, or extract the archive yourself and name its folder'
      )
    with (
      gzip.open(path) as stream,
      # '|' reads the stream once, from front to back.
      tarfile.open(fileobj=stream, mode='r|') as archive,
    ):
      for member in archive:
        link = member.issym() or member.islnk()
        _require_inside(path, member.name, link)
        if member.isreg() and wanted(member.name):
          _extract_member(archive, member, files / member.name)
      # Only at its end does gzip verify the checksum of the whole.
      while stream.read(1 << 20):
        pass
    done.touch()
  except UserError:
    raise
  except (
    tarfile.TarError,
    EOFError,
    ValueError,
    zlib.error,
    gzip.BadGzipFile,
  ) as error:
    # What was extracted may be damaged too.
    shutil.rmtree(folder, ignore_errors=True)
    raise UserError(
      f'{path} cannot be read as a .tar.gz archive ({error}): download it again'
    ) from error
  except OSError as error:
    raise UserError(f'{path} cannot be extracted ({error})') from error
  return files


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
