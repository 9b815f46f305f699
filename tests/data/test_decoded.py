"""Samples are decoded once into files and mapped, or kept in memory."""

import contextlib
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest

from mlf_jax.data import decoded
from tests.data.waiting import waiting_for_this

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 2, 3, 1), np.uint8)
LABELS = np.arange(7, dtype=np.int32)
IDS = np.array([f'sample {"x" * i}' for i in range(7)])


def decode(start, ids=IDS):
  parts = (slice(i, min(i + 3, 7)) for i in range(start, 7, 3))
  return IMAGES.shape, (
    decoded.Samples(IMAGES[p], LABELS[p], None if ids is None else ids[p])
    for p in parts
  )


def never(start):
  raise AssertionError('decoded again')


def assert_whole(samples):
  np.testing.assert_array_equal(samples.images, IMAGES)
  np.testing.assert_array_equal(samples.labels, LABELS)
  np.testing.assert_array_equal(samples.ids, IDS)


def names(folder):
  return sorted(path.name for path in folder.glob('*') if path.name != '.lock')


def test_samples_are_decoded_once_and_then_mapped(tmp_path):
  folder = tmp_path / 'new' / 'decoded'
  assert_whole(decoded.decode_once(folder, 'train', 'key', decode))
  again = decoded.decode_once(folder, 'train', 'key', never)
  assert_whole(again)
  assert isinstance(again.images, np.memmap)
  assert not again.images.flags.writeable
  # Other splits stay beside them, those of another key do not.
  decoded.decode_once(folder, 'test', 'key', lambda start: decode(start, None))
  assert decoded.decode_once(folder, 'test', 'key', never).ids is None
  assert_whole(decoded.decode_once(folder, 'train', 'other', decode))
  assert names(folder) == ['test-key', 'train-other']


@pytest.mark.parametrize('file', ['images', 'labels', 'ids'])
@pytest.mark.parametrize(
  'damage',
  [
    lambda content: content[:-1],
    lambda content: content[:20],
    lambda content: b'',
    lambda content: bytes(len(content)),
    None,
  ],
)
def test_damaged_files_are_made_anew(tmp_path, file, damage):
  decoded.decode_once(tmp_path, 'train', 'key', decode)
  path = tmp_path / 'train-key' / f'{file}.npy'
  content = path.read_bytes()
  path.unlink()
  if damage:
    path.write_bytes(damage(content))
  assert_whole(decoded.decode_once(tmp_path, 'train', 'key', decode))
  assert path.read_bytes() == content


def test_file_that_is_too_long_is_made_anew(tmp_path):
  decoded.decode_once(tmp_path, 'train', 'key', decode)
  with (tmp_path / 'train-key' / 'images.npy').open('ab') as file:
    file.write(b'more')
  assert_whole(decoded.decode_once(tmp_path, 'train', 'key', decode))
  decoded.decode_once(tmp_path, 'train', 'key', never)


def test_key_tells_contents_apart_but_not_copies(tmp_path):
  for name, content in (('a', b'x'), ('copy', b'x'), ('other', b'y')):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'shard').write_bytes(bytes(1 << 18) + content)
  keys = [decoded.files_key(tmp_path / n) for n in ('a', 'copy', 'other')]
  assert keys[0] == keys[1] != keys[2]
  (tmp_path / 'a' / 'decoded').mkdir()
  assert decoded.files_key(tmp_path / 'a') == keys[0]
  (tmp_path / 'a' / 'shard').rename(tmp_path / 'a' / 'renamed')
  assert decoded.files_key(tmp_path / 'a') != keys[0]


def failing(error):
  """Decodes as `decode` does, but fails after the second batch."""

  def decode_some(start):
    shape, batches = decode(start)

    def two():
      yield next(batches)
      yield next(batches)
      raise error

    return shape, two()

  return decode_some


def test_failed_decoding_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match='broken'):
    decoded.decode_once(tmp_path, 'train', 'key', failing(ValueError('broken')))
  assert not names(tmp_path)


def test_decoding_continues_where_it_was_killed(tmp_path, monkeypatch):
  # KeyboardInterrupt stands for a kill: what is written is left as it is.
  monkeypatch.setattr(decoded, '_SAVE_EVERY_S', 0)
  (tmp_path / 'train-killed.part').mkdir()
  with pytest.raises(KeyboardInterrupt):
    decoded.decode_once(tmp_path, 'train', 'key', failing(KeyboardInterrupt))
  (part,) = names(tmp_path)
  # A write may have been cut short.
  with (tmp_path / part / 'images.npy').open('ab') as file:
    file.write(b'half a sample')
  starts = []

  def decode_rest(start):
    starts.append(start)
    return decode(start)

  assert_whole(decoded.decode_once(tmp_path, 'train', 'key', decode_rest))
  assert starts == [6]
  assert names(tmp_path) == ['train-key']


def test_samples_that_cannot_be_stored_are_in_memory(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.warns(UserWarning, match='cannot write to.*kept in memory'):
    samples = decoded.decode_once(tmp_path / 'file', 'train', 'key', decode)
  assert_whole(samples)
  large = np.zeros((7, 100, 100, 1), np.uint8)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # More than what is written to standard error, which may be a file too.
  resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
  try:
    with pytest.warns(UserWarning, match='File too large; .* kept in memory'):
      samples = decoded.decode_once(
        tmp_path,
        'train',
        'key',
        lambda start: (large.shape, [decoded.Samples(large, LABELS)]),
      )
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  np.testing.assert_array_equal(samples.images, large)
  assert names(tmp_path) == ['file']


def test_second_process_waits_for_the_first(tmp_path):
  second = lambda: decoded.decode_once(tmp_path, 'train', 'key', never)
  with contextlib.ExitStack() as until_it_ends:
    waiting = waiting_for_this(second)
    results = []

    def decode_slowly(start):
      results.append(until_it_ends.enter_context(waiting))
      return decode(start)

    decoded.decode_once(tmp_path, 'train', 'key', decode_slowly)
  assert_whole(results[0][0])


_LARGE = """
import pathlib, resource, sys
import numpy as np
from mlf_jax import data
from mlf_jax.data import decoded
from mlf_jax.data.dataset import Split

size, limit, part = (100 << 20) // 3072, 25 << 20, 500
fields = dict(
  line.split(':', 1) for line in open('/proc/self/status') if ':' in line
)
used = int(fields['VmData'].split()[0]) << 10
# Private memory; pages of mapped files, which are shared, do not count.
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
try:
  np.ones(2 * limit, np.uint8)
  raise SystemExit('the limit is not enforced')
except MemoryError:
  pass

def decode(start):
  return (size, 32, 32, 3), (
    decoded.Samples(
      np.full((min(part, size - i), 32, 32, 3), i // part % 256, np.uint8),
      np.arange(i, min(i + part, size), dtype=np.int32) % 10,
    )
    for i in range(start, size, part)
  )

samples = decoded.decode_once(pathlib.Path(sys.argv[1]), 'train', 'key', decode)
split = Split(*samples)
for step in range(data.steps_per_epoch(split, 64)):
  batch = data.train_batch(split, 64, 0, step)
  assert type(batch['image']) is np.ndarray
print(split.split_hash)
few = data.ChosenRows(samples.images, np.arange(0, size, 10))
dataset = data.from_arrays(*samples[:2], *samples[:2])
for split in (Split(few, samples.labels[::10]), dataset.test):
  for batch in data.eval_batches(split, 64):
    assert type(batch['image']) is np.ndarray
print(dataset.mean[0])
"""


def test_samples_larger_than_the_memory_are_decoded_and_trained_on(tmp_path):
  """100 MB of images, 25 MB of memory."""
  done = subprocess.run(
    [sys.executable, '-c', _LARGE, tmp_path],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  split_hash, mean = done.stdout.split()
  size = (100 << 20) // 3072
  images = np.arange(size) // 500 % 256
  assert float(mean) == pytest.approx(images.mean() / 255)
  path = pathlib.Path(tmp_path, 'train-key', 'images.npy')
  assert path.stat().st_size - size * 3072 == 128
  assert len(split_hash) == 16
