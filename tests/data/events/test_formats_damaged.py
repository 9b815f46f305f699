"""Damaged recordings: each is an error that names the file and the byte."""

import gzip
import io
import itertools
import zipfile
from unittest import mock

import pytest

from mlf_jax.data import event_files
from mlf_jax.errors import UserError
from tests.data import recordings
from tests.data.reading import (
  GOOD,
  HEADER,
  HEADER2,
  NAME,
  READERS,
  Named,
  assert_holds,
  fails,
  opened_path,
  write,
)

# A cut is no error where a shorter recording ends.


def line_starts(header):
  lines = header.splitlines(keepends=True)
  return [0, *itertools.accumulate(map(len, lines))]


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_aedat3_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  sizes = (3, 1)
  content = recordings.aedat3(
    GOOD, sizes, between=[recordings.packet3(2, b'abcdef', 3)]
  )
  packets = [0, 28 + 6, 28 + 3 * 8, 28 + 8]
  packets = [len(HEADER) + end for end in itertools.accumulate(packets)]
  assert packets[-1] == len(content)
  for cut in range(len(content)):
    if cut < len('#!AER-DAT'):
      fails(content[:cut], 'no AEDAT file', 0)
    elif cut < len(HEADER):
      start = max(start for start in line_starts(HEADER) if start <= cut)
      fails(content[:cut], 'ends within its header', start)
    elif cut in packets:
      number = (0, 0, 3)[packets.index(cut)]
      read = event_files.read_aedat(io.BytesIO(content[:cut]))
      assert_holds(read, GOOD[:number])
    else:
      start = max(start for start in packets if start < cut)
      if cut < start + 28:
        fails(content[:cut], 'where a packet header has 28', start)
      else:
        fails(content[:cut], f'packet at byte {start} announces', cut)


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_aedat2_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  content, starts = recordings.aedat2(GOOD), line_starts(HEADER2)
  for cut in range(len(content)):
    number, rest = divmod(cut - len(HEADER2), 8)
    if cut < len('#!AER-DAT'):
      fails(content[:cut], 'no AEDAT file', 0)
    elif cut < len(HEADER2) and cut not in starts:
      start = max(start for start in starts if start < cut)
      fails(content[:cut], 'ends within its header', start)
    elif cut < len(HEADER2) or not rest:
      read = event_files.read_aedat(io.BytesIO(content[:cut]))
      assert_holds(read, GOOD[: max(0, number)])
    else:
      fails(content[:cut], f'truncated: {rest} bytes', cut - rest)


@pytest.mark.parametrize('block', [1, 2, event_files._BLOCK])
def test_n_mnist_cut_anywhere(block, monkeypatch):
  monkeypatch.setattr(event_files, '_BLOCK', block)
  content, read = recordings.n_mnist(GOOD), event_files.read_n_mnist
  for cut in range(len(content)):
    number, rest = divmod(cut, 5)
    if rest:
      fails(content[:cut], f'truncated: {rest} bytes', cut - rest, read)
    else:
      assert_holds(read(io.BytesIO(content[:cut])), GOOD[:number], (34, 34))


@pytest.mark.parametrize('name', READERS)
def test_gzip_cut_anywhere_or_damaged(name):
  packed = gzip.compress(write(name, GOOD))
  for cut in range(1, len(packed)):
    damaged = packed[:cut] + bytes([packed[cut] ^ 0xFF]) + packed[cut + 1 :]
    for content in (packed[:cut], damaged):
      if content is damaged and cut < 10:
        continue  # Of the header of gzip not every byte matters.
      with pytest.raises(
        event_files.RecordingError, match=r'^recording: byte \d+: [^\n]*$'
      ):
        READERS[name](gzip.GzipFile(fileobj=io.BytesIO(content)))


@pytest.mark.parametrize(
  'method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize('name', READERS)
def test_damaged_member_of_a_zip(name, method, tmp_path):
  path = tmp_path / 'recordings.zip'
  # Not compressible: the bytes in the middle are those of the member.
  events = [(t, t * t % 31, t**3 % 29, t % 2) for t in range(2000)]
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr(NAME, write(name, events))
  packed = bytearray(path.read_bytes())
  half = len(packed) // 2
  packed[half : half + 400] = b'\xff' * 400
  path.write_bytes(packed)
  with (
    zipfile.ZipFile(path) as archive,
    archive.open(NAME) as member,
    pytest.raises(
      event_files.RecordingError,
      match=rf'^{NAME}: byte \d+: cannot be read [^\n]*$',
    ),
  ):
    READERS[name](member)


# What stands at the beginning.


@pytest.mark.parametrize(
  ('content', 'problem', 'offset'),
  [
    (b'', 'it is empty', 0),
    (b'\x00' * 100, 'no AEDAT file', 0),
    (b'# a comment\r\n' + HEADER, 'no AEDAT file', 0),
    (b'\r\n' + HEADER, 'no AEDAT file', 0),
    (b'#!AER-DAT\r\n', 'no version', 0),
    (b'#!AER-DAT3\r\n', 'no version', 0),
    (b'#!AER-DAT3.1beta\r\n', 'no version', 0),
    (b'#!AER-DAT1.0\r\n', 'AEDAT 1.0 is unknown; known: 2.0, 3.1', 0),
    (b'#!AER-DAT4.0\r\n', 'AEDAT 4.0 is unknown', 0),
    (HEADER.replace(b'#!END-HEADER\r\n', b''), 'ends within its', 47),
    (b'#!AER-DAT3.1\n#a\nb\n#!END-HEADER\n', 'without #', 16),
    (b'#!AER-DAT3.1\n\n#!END-HEADER\n', 'without #', 13),
  ],
)
def test_wrong_beginning(content, problem, offset):
  fails(content, problem, offset)


def test_header_without_its_end_but_with_packets():
  content = recordings.aedat3(GOOD).replace(b'#!END-HEADER\r\n', b'')
  fails(content, '', len(HEADER) - len('#!END-HEADER\r\n'))


@pytest.mark.parametrize('version', ['2.0', '3.1'])
def test_header_line_that_never_ends(version):
  endless = b'a' * (1 << 20)
  first = f'#!AER-DAT{version}'.encode()
  fails(b'#' + endless, 'no AEDAT file', 0)
  fails(first + endless, 'line does not end', 0)
  fails(first + b'\r\n#' + endless, 'line does not end', len(first) + 2)


def test_one_format_taken_for_another():
  for name in ('aedat3', 'aedat2'):
    content = write(name, GOOD)
    for block in (1, event_files._BLOCK):
      with mock.patch.object(event_files, '_BLOCK', block):
        fails(content, '', 0, event_files.read_n_mnist)
  fails(write('aedat3', GOOD), 'AEDAT file', 0, event_files.read_n_mnist)
  fails(recordings.n_mnist(GOOD), 'no AEDAT file', 0)
  aedat3, aedat2 = recordings.aedat3(GOOD, (2,)), recordings.aedat2(GOOD)
  fails(aedat3.replace(b'3.1', b'2.0', 1), 'DVS128', len(HEADER))
  fails(aedat2.replace(b'2.0', b'3.1', 1), 'header', len(HEADER2))


# What is no file of a recording at all.


@pytest.mark.parametrize('read', [*READERS.values()])
def test_folder_or_missing_file(read, tmp_path):
  for path in (tmp_path, tmp_path / 'missing', str(tmp_path / 'missing')):
    with pytest.raises(UserError) as info:
      read(path)
    assert str(info.value).startswith(f'{path} cannot be opened (')
    assert '\n' not in str(info.value)


def test_error_names_the_path(tmp_path):
  path = opened_path(b'12', tmp_path)
  for file in (path, str(path)):
    with pytest.raises(event_files.RecordingError) as info:
      event_files.read_n_mnist(file)
    assert str(info.value).startswith(f'{path}: byte 0: truncated')


def test_file_that_cannot_be_read():
  class Broken(Named):
    def read(self, size=-1):
      if self.tell() > 4:
        raise OSError(5, 'Input/output error')
      return super().read(min(size, 5))

  with pytest.raises(
    event_files.RecordingError, match=r'byte 5: cannot be read .*output error'
  ):
    event_files.read_n_mnist(Broken(recordings.n_mnist(GOOD)))


@pytest.mark.parametrize('name', READERS)
def test_unknown_choice_for_times_going_back(name):
  with pytest.raises(UserError, match="did you mean 'sort'"):
    READERS[name](io.BytesIO(write(name, GOOD)), backwards='sorted')


@pytest.mark.parametrize(
  'file', [b'#!AER-DAT3.1', None, 3, io.StringIO('#!AER-DAT3.1\n')]
)
def test_what_is_no_binary_file(file):
  with pytest.raises(UserError, match='binary file open for reading, not'):
    event_files.read_aedat(file)
  closed = io.BytesIO()
  closed.close()
  with pytest.raises(UserError, match='not BytesIO'):
    event_files.read_n_mnist(closed)
