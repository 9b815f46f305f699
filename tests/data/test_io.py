"""Files are written whole or not at all; a folder has one owner at a time."""

import errno
import shutil

import pytest

from mlf_jax.data import io
from mlf_jax.errors import UserError
from tests.data.waiting import waiting_for_this


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'file'
  io.write_atomically(path, b'first')

  def write_and_fail(part):
    part.write_bytes(b'half')
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    io.write_atomically(path, write_and_fail)
  assert path.read_bytes() == b'first'
  io.write_atomically(path, lambda part: part.write_bytes(b'second'))
  assert path.read_bytes() == b'second'
  assert list(tmp_path.iterdir()) == [path]


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
  folder = tmp_path / 'new' / 'folder'
  reserve = lambda: io.exclusive(folder, 'the folder', 'works', 'go elsewhere')
  another = pytest.raises(UserError, match=r'another process works in .*; wait')
  with reserve(), another, reserve():
    pass
  with reserve():
    pass
  (folder / 'file').touch()
  folder /= 'file'
  with pytest.raises(UserError, match=r'cannot write to the .*; go'), reserve():
    pass


def test_folder_that_another_has_is_waited_for(tmp_path):
  folder = tmp_path / 'folder'

  def second():
    with io.exclusive(folder, '', 'works', '', wait=True):
      # Whoever comes now finds this one, though the first removed the folder.
      with pytest.raises(UserError, match='another process works'):
        io.exclusive(folder, '', 'works', '').__enter__()
      return (folder / 'first').exists()

  first = io.exclusive(folder, '', 'works', '')
  first.__enter__()
  with waiting_for_this(second) as results:
    shutil.rmtree(folder)
    first.__exit__(None, None, None)
  assert results == [False]


def test_file_system_without_locks(tmp_path, monkeypatch):
  def refuse(*unused):
    raise OSError(errno.ENOSYS, 'Function not implemented')

  monkeypatch.setattr(io.fcntl, 'flock', refuse)
  refused = pytest.raises(UserError, match='its file system has no locks; go')
  with refused, io.exclusive(tmp_path, 'the folder', 'works', 'go'):
    pass
  with io.exclusive(tmp_path, 'the folder', 'works', 'go', needs_locks=False):
    pass
