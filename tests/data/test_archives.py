"""Archives: a damaged one is noticed, and none reaches outside its folder."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from mlf_jax.data import archives
from mlf_jax.errors import UserError
from tests.data import event_trees

FILES = {f'folder/{i}.bin': bytes([i]) * (50 + i) for i in range(9)}


def extract(folder):
  return archives.extract_tar(
    folder / 'archive.tar.gz', folder / 'to', lambda name: True
  )


def test_only_a_whole_extraction_counts(tmp_path, monkeypatch):
  path = tmp_path / 'archive.tar.gz'
  event_trees.write_tar(path, FILES)
  copy, copied = shutil.copyfileobj, []

  def copy_half_of_the_fourth(source, target):
    copied.append(target.name)
    if len(copied) == 4:
      target.write(source.read(20))
      raise KeyboardInterrupt
    copy(source, target)

  monkeypatch.setattr(shutil, 'copyfileobj', copy_half_of_the_fourth)
  with pytest.raises(KeyboardInterrupt):
    extract(tmp_path)
  for _ in range(2):  # The second time they are there.
    files = extract(tmp_path)
    # Of the first time three files are whole.
    assert len(copied) == 4 + len(FILES) - 3
    for name, content in FILES.items():
      assert (files / name).read_bytes() == content
  # Nothing is left of another archive.
  path.write_bytes(b'')
  with pytest.raises(UserError):
    extract(tmp_path)
  assert not files.exists()


def test_damaged_tar_archive_is_noticed_wherever_it_is_damaged(tmp_path):
  """gzip's checksum is at its end, where tar does not read."""
  path = tmp_path / 'archive.tar.gz'
  event_trees.write_tar(path, FILES)
  content = bytearray(path.read_bytes())
  random = np.random.default_rng(0)
  damaged = [
    content[:length] for length in random.integers(len(content), size=40)
  ]
  for at in random.integers(len(content), size=60):
    damaged.append(content.copy())
    damaged[-1][at] ^= 1 << random.integers(8)
  noticed = 0
  for version in damaged:
    path.write_bytes(version)
    try:
      files = extract(tmp_path)
    except UserError as error:
      assert 'download it again' in str(error)
      assert not (tmp_path / 'to').exists()
      noticed += 1
    else:  # Not every bit of gzip matters.
      assert all((files / name).read_bytes() == FILES[name] for name in FILES)
  assert noticed > 80


@pytest.mark.parametrize(
  ('name', 'kind', 'fault'),
  [
    ('../file', tarfile.REGTYPE, 'would lie outside of it'),
    ('/file', tarfile.REGTYPE, 'would lie outside of it'),
    ('file', tarfile.LNKTYPE, 'is a link'),
  ],
)
def test_tar_archive_that_reaches_outside(tmp_path, name, kind, fault):
  member = tarfile.TarInfo(name)
  member.type, member.linkname = kind, '/etc/passwd'
  event_trees.write_tar(tmp_path / 'archive.tar.gz', FILES, member)
  with pytest.raises(UserError, match=f"'{name}' {fault}"):
    extract(tmp_path)
  assert not list(tmp_path.glob('**/file'))


@pytest.mark.parametrize(
  ('name', 'mode', 'fault'),
  [
    ('..\\file', 0o100644, 'would lie outside of it'),
    ('folder/file', 0o120777, 'is a link'),
  ],
)
def test_zip_archive_that_reaches_outside(tmp_path, name, mode, fault):
  path = tmp_path / 'archive.zip'
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(info, '/etc/passwd')
  with pytest.raises(UserError, match=fault):
    archives.zip_members(path)


@pytest.mark.parametrize(
  ('at', 'value', 'problem'),
  [
    (6, 132, 'cannot be read as a zip archive (zip file version 13.2)'),
    (8, 1, "cannot be opened (File 'dog/1.aedat' is encrypted"),
    (None, None, 'cannot be read as a zip archive'),
  ],
)
def test_zip_archive_that_cannot_be_decoded(tmp_path, at, value, problem):
  """A later version of the format, an encrypted member, a cut."""
  path = tmp_path / 'dog.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('dog/1.aedat', b'')
  content = bytearray(path.read_bytes())
  if at is None:
    content = content[:-9]
  else:
    for header, before in ((b'PK\1\2', 0), (b'PK\3\4', 2)):
      content[content.index(header) + at - before] = value
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    (member,) = archives.zip_members(path)
    with member.open():
      pass
  assert problem in str(error.value)
