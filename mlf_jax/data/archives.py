"""Files of a published data set, in folders, zip and .tar.gz archives.

Nothing that an archive says about where a file belongs is believed: a member
that would lie outside, or that is a link, is an error.
"""

import contextlib
import dataclasses
import errno
import functools
import gzip
import lzma
import os
import pathlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mlf_jax.data.io import LOCK, write_atomically
from mlf_jax.errors import UserError

# Name of the folder that a preparation works in, while it does.
PREPARING = 'preparing'
# Errors of reading a damaged file, or a damaged member of an archive.
DAMAGED = (
  OSError,
  EOFError,
  zlib.error,
  lzma.LZMAError,
  zipfile.BadZipFile,
  tarfile.TarError,
)

# zipfile adds RuntimeError for what it cannot decode: encryption, a later
# version of the format.
_ZIP_DAMAGED = (*DAMAGED, RuntimeError)
_TAR_DAMAGED = (tarfile.TarError, EOFError, ValueError, zlib.error)
# Errors of the machine, which are no fault of a file: too many open files, no
# memory, a file that has vanished since it was listed.
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
    archived: True if `path` is the archive.
  """

  name: str
  size: int
  stamp: int
  path: pathlib.Path
  archived: bool = False

  def __str__(self) -> str:
    """Name of the file in messages."""
    return f'{self.path}: {self.name}' if self.archived else str(self.path)

  @contextlib.contextmanager
  def open(self) -> Iterator[BinaryIO]:
    """Opens the file for reading; errors of the reader name it as `str` does.

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
    """Reads the file as lines of text.

    Raises:
      UserError: it cannot be read.
    """
    with self.open() as file:
      try:
        content = file.read()
      except DAMAGED as error:
        raise UserError(f'{self} cannot be read ({error})') from error
    return content.decode('utf-8-sig', 'replace').splitlines()


# Kept open: reading the list of tens of thousands of members is slow.
@functools.lru_cache(maxsize=16)
def _zip_file(path: pathlib.Path, size: int, changed: int) -> zipfile.ZipFile:
  del size, changed  # A file that was replaced is another file.
  return zipfile.ZipFile(path)


def folder_members(folder: pathlib.Path) -> tuple[list[Member], list[str]]:
  """Lists the files under a folder, at any depth; links are followed.

  The folder that a preparation works in is passed over.

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
    prepares = path.name == PREPARING and LOCK in files
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
  """True if links have led from `folder` to a folder above `path`."""
  above = list(path.parents)[: len(path.parts) - len(folder.parts)]
  real = os.path.realpath(path)
  return any(os.path.realpath(parent) == real for parent in above)


def zip_members(path: pathlib.Path) -> list[Member]:
  """Lists the files in a zip archive, which is not extracted.

  Raises:
    UserError: it is damaged, or a member lies outside or is a link.
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


def _require_inside(path: pathlib.Path, name: str, link: bool) -> None:
  """Raises unless a member of an archive is a file within it."""
  parts = pathlib.PurePosixPath(name.replace('\\', '/')).parts
  if link or '..' in parts or name.startswith(('/', '\\')):
    fault = 'is a link' if link else 'would lie outside of it'
    raise UserError(
      f'{path}: the member {name!r} {fault}; this is not the published archive'
    )


@contextlib.contextmanager
def _opened_tar(path: pathlib.Path, source: str = '') -> Iterator:
  """Opens a .tar.gz archive to be read once, from front to back.

  Args:
    path: the archive.
    source: ' from URL' for messages, if the archive has one.

  Raises:
    UserError: it cannot be read to its end.
  """
  try:
    with (
      gzip.open(path) as stream,
      tarfile.open(fileobj=stream, mode='r|') as archive,
    ):
      yield archive
      # gzip verifies the checksum of the whole only at its end.
      while stream.read(1 << 20):
        pass
  except UserError:
    raise
  except (*_TAR_DAMAGED, gzip.BadGzipFile) as error:
    raise UserError(
      f'{path} cannot be read as a .tar.gz archive ({error}): download it again'
      + source
    ) from error


def first_folder(path: pathlib.Path) -> str:
  """Folder of the first member of a .tar.gz archive, '' if there is none."""
  try:
    with tarfile.open(path, 'r:gz') as archive:
      member = archive.next()
  except (OSError, *_TAR_DAMAGED):
    return ''
  parts = pathlib.PurePosixPath(member.name).parts if member else ()
  return parts[0] if parts else ''


def read_tar(
  path: pathlib.Path, folder: str, files: list[str], url: str
) -> dict[str, bytes]:
  """Reads some regular files of a .tar.gz archive into memory.

  Every other member, whatever its name or kind, is passed over.

  Args:
    path: the archive.
    folder: folder of the files within it.
    files: their names.
    url: where it is published, for messages.

  Returns:
    The content of each file.

  Raises:
    UserError: the archive cannot be read, or lacks a file.
  """
  members, wanted = {}, {f'{folder}/{file}': file for file in files}
  try:
    with _opened_tar(path, f' from {url}') as archive:
      for member in archive:
        file = wanted.get(member.name.removeprefix('./'))
        if file and member.isreg():
          members[file] = archive.extractfile(member).read()
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}).') from error
  missing = [name for name, file in wanted.items() if file not in members]
  if missing:
    raise UserError(
      f'{path} is not {url.rsplit("/", 1)[-1]}: it lacks {", ".join(missing)}.'
    )
  return members


def extract_tar(
  path: pathlib.Path, folder: pathlib.Path, wanted: Callable[[str], bool]
) -> pathlib.Path:
  """Extracts files of a .tar.gz archive; continues where it was stopped.

  A file takes its name when it is whole, and is not written again.

  Args:
    path: the archive.
    folder: where the files go; it is emptied if it holds those of another
      archive.
    wanted: tells by its name if a member is to be extracted.

  Returns:
    The folder that holds the files and nothing else.

  Raises:
    UserError: the archive is damaged, or a member lies outside or is a link,
      or the disk is full.
  """
  try:
    status = path.stat()
    files = folder / f'{path.name}-{status.st_size}-{status.st_mtime_ns}'
    if files.exists():
      return files
    part = files.with_name(f'{files.name}.part')
    if not part.exists():
      shutil.rmtree(folder, ignore_errors=True)
      part.mkdir(parents=True)
    for left_behind in part.rglob('*.part'):
      left_behind.unlink()
    # The published archives about double in size.
    needed, free = 2 * status.st_size, shutil.disk_usage(folder).free
    if free + sum(m.size for m in folder_members(part)[0]) < needed:
      raise UserError(
        f'{path.name} needs about {needed / 1e9:.1f} GB to be extracted, but '
        f'{folder} has {free / 1e9:.1f} GB left: name another folder for '
        'prepared data, or extract the archive yourself and name its folder'
      )
    try:
      _extract_members(path, part, wanted)
    except UserError:  # The files that are there may be damaged too.
      shutil.rmtree(folder, ignore_errors=True)
      raise
    part.replace(files)
  except OSError as error:
    raise UserError(f'{path} cannot be extracted ({error})') from error
  return files


def _extract_members(path, folder, wanted) -> None:
  """Writes the wanted members that are not there yet."""
  with _opened_tar(path) as archive:
    for member in archive:
      _require_inside(path, member.name, member.issym() or member.islnk())
      file = folder / member.name
      if not (member.isreg() and wanted(member.name)):
        continue
      if file.exists() and file.stat().st_size == member.size:
        continue
      file.parent.mkdir(parents=True, exist_ok=True)

      def copy(part, member=member):
        with part.open('wb') as target:
          shutil.copyfileobj(archive.extractfile(member), target)

      write_atomically(file, copy)
