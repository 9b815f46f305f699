"""Downloads published files, checked before they are trusted."""

import hashlib
import http.client
import pathlib
import shutil
import urllib.error
import urllib.request
from typing import BinaryIO

import rich.console
import rich.progress

from mlf_jax.data.io import write_atomically
from mlf_jax.errors import UserError

_TIMEOUT_S = 30


def checksum(path: pathlib.Path, algorithm: str = 'sha256') -> str:
  """Sum of a file, as hexadecimal digits.

  Args:
    path: the file.
    algorithm: 'sha256', or 'md5' where only that is published, which tells
      damage but no forgery.

  Raises:
    UserError: the file cannot be read.
  """
  make = lambda: hashlib.new(algorithm, usedforsecurity=False)
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, make).hexdigest()
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}).') from error


def download(
  url: str, folder: pathlib.Path, size: int, sha256: str
) -> pathlib.Path:
  """Downloads a file, unless the folder holds it already.

  The file takes its name only once its checksum is verified, so that a download
  that was cut short is never mistaken for the file.

  Args:
    url: where the file is published.
    folder: existing folder for the file, which keeps its name in `url`.
    size: its published size in bytes, for the progress line and the messages.
    sha256: its published SHA-256, hexadecimal digits.

  Returns:
    The path of the file.

  Raises:
    UserError: no connection, or other bytes arrived than were published.
  """
  path = folder / url.rsplit('/', 1)[-1]
  if path.is_file() and checksum(path) == sha256:
    return path

  def fetch(part):
    with part.open('wb') as file:
      _copy_url(url, file, size)
    received = checksum(part)
    if received != sha256:
      raise UserError(
        f'{url} sent {part.stat().st_size} bytes with SHA-256 {received}, but'
        f' {size} bytes with {sha256} are published: try again.'
      )

  try:
    write_atomically(path, fetch)
  except OSError as error:
    raise UserError(f'{path} cannot be written ({error.strerror}).') from error
  return path


def _copy_url(url: str, file: BinaryIO, size: int) -> None:
  """Copies the response of a URL to an open file, with a progress line."""
  try:
    with (
      urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response,
      rich.progress.wrap_file(
        response,
        size,
        description=f'Downloading {url}',
        console=rich.console.Console(stderr=True),
      ) as reader,
    ):
      shutil.copyfileobj(reader, file)
  except (OSError, http.client.HTTPException) as error:
    if isinstance(error, urllib.error.HTTPError):
      error.close()  # It is also the response, with its connection.
    raise UserError(
      f'{url} cannot be downloaded ({error}). Fetch this file of'
      f' {size / 1e6:.0f} MB elsewhere and name its folder:'
      ' --config.data.manual_dir=DIR.'
    ) from error
