"""Feeds damaged recordings to the readers: `python benchmarks/fuzz_events.py`.

The files are random bytes, and valid recordings that were changed: bits
flipped, parts removed, inserted, or exchanged between two files, fields set to
extreme values. A reader may return events or raise a `RecordingError`. Failures
are any other exception, events that break the invariants of `Events`, a message
of more than a line or without a byte of the file, and memory above three times
the columns of a valid file of that length plus `SPARE` bytes. Failures are
saved, and the exit code is 1.
"""

import argparse
import importlib
import io
import pathlib
import random
import re
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc

import numpy as np

from mlf_jax.data.events import (
  FrameSpec,
  RecordingError,
  read_aedat,
  read_n_mnist,
)

# Bytes for the block of events that is being decoded.
SPARE = 2 << 20
# Bytes of an event in the columns, and in a file.
COLUMN_BYTES = 13
FILE_BYTES = {read_aedat: 8, read_n_mnist: 5}
EXTREME = (0, 1, -1, 127, 128, 2**15, 2**15 - 1, 2**31, 2**31 - 1, -(2**31))
MOST_FAILURES = 10


def valid_recordings(rng):
  """Returns recordings of every format, some of several blocks."""
  sys.path.append(str(pathlib.Path(__file__).parents[1]))
  writers = importlib.import_module('tests.data.recordings')
  recordings = []
  for number in (0, 1, 5, 40, 300, 40_000):
    events, t = [], rng.choice([0, 2**23 - 50, 2**31 - 50, 2**32 - 50])
    for _ in range(number):
      t += rng.choice([0, 1, 10, 1000])
      events.append((t, rng.randrange(34), rng.randrange(34), t % 2))
    marked = set(rng.sample(range(number), number // 5))
    other = [writers.packet3(k, b'\1' * 72, 36 - 9 * k) for k in (0, 2, 3)]
    recordings += [
      writers.aedat3(events, (1,), between=other),
      writers.aedat3(events, (300, 0, 7), invalid=marked),
      writers.aedat2(events, special=marked),
      writers.n_mnist(events),
    ]
  return recordings


def flip(rng, content, _):
  """Flips some bits."""
  for _ in range(rng.choice([1, 1, 2, 10])):
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(rng, content, _):
  """Removes the end, or a part."""
  start = rng.randrange(len(content))
  stop = rng.choice([len(content), start + rng.randrange(1, 60)])
  del content[start:stop]


def insert(rng, content, _):
  """Inserts random bytes."""
  start = rng.randrange(len(content) + 1)
  content[start:start] = rng.randbytes(rng.randrange(1, 60))


def splice(rng, content, other):
  """Joins a beginning to an end of another recording."""
  start = rng.randrange(len(content))
  content[start:] = other[rng.randrange(len(other) + 1) :]


def repeat(rng, content, _):
  """Repeats a part, so that time goes back."""
  start = rng.randrange(len(content))
  part = content[start : start + rng.randrange(1, 4000)]
  content[start:start] = part


def extreme(rng, content, _):
  """Sets an extreme value in a packet header, or anywhere."""
  starts = packet_headers(content)
  if starts and rng.random() < 0.8:
    start = rng.choice(starts)
    form, at = rng.choice([('<H', 0), *(('<I', i) for i in range(4, 28, 4))])
  else:
    start, at, form = rng.randrange(len(content)), 0, rng.choice(['<I', '>I'])
  value = rng.choice([*EXTREME, rng.getrandbits(32)])
  if start + at + 4 <= len(content):
    size = 16 if form == '<H' else 32
    struct.pack_into(form, content, start + at, value % (1 << size))


def packet_headers(content):
  """Offsets of the packet headers of AEDAT 3.1, at most 100."""
  end = b'#!END-HEADER\r\n'
  start, starts = content.find(end), []
  start = len(content) if start < 0 else start + len(end)
  while start + 28 <= len(content) and len(starts) < 100:
    starts.append(start)
    size, number = (
      struct.unpack_from('<I', content, start + i)[0] for i in (4, 20)
    )
    start += 28 + size * number
  return starts


CHANGES = (flip, cut, insert, splice, repeat, extreme, extreme)
BEGINNINGS = (
  b'',
  b'#!AER-DAT3.1\r\n#!END-HEADER\r\n',
  b'#!AER-DAT2.0\r\n',
  b'#!AER-DAT',
  b'#',
)


def damaged(rng, recordings):
  """Returns the bytes of a damaged file."""
  if rng.random() < 0.1:
    return rng.choice(BEGINNINGS) + rng.randbytes(rng.randrange(2000))
  # Mostly short ones: a long one takes as much time as many of them.
  while len(content := rng.choice(recordings)) > 50_000 and rng.random() < 0.9:
    pass
  content = bytearray(content)
  for _ in range(rng.choice([1, 1, 2, 4])):
    if content:
      rng.choice(CHANGES)(rng, content, rng.choice(recordings[:-4]))
  return bytes(content)


def check_events(events, content):
  """Asserts the invariants of `Events`, and that frames can be made."""
  columns = (events.t, events.x, events.y, events.p)
  dtypes = (np.int64, np.uint16, np.uint16, np.uint8)
  for column, dtype in zip(columns, dtypes, strict=True):
    assert column.dtype == dtype and column.shape == (len(events),)
  assert 0 <= 5 * (len(events) + events.dropped) <= len(content)
  assert (np.diff(events.t) >= 0).all()
  for spec in (FrameSpec(7, 'span'), FrameSpec(7, 'window', 2**31)):
    edges = spec.edges(events)
    assert (np.diff(edges) >= 0).all() and edges[0] == 0
  if len(events):
    assert events.t[0] >= 0 and events.p.max() <= 1
    assert events.y.max() < events.sensor_size[0]
    assert events.x.max() < events.sensor_size[1]


def check_message(message, content):
  """Asserts that a message is one line that names a byte of the file."""
  match = re.fullmatch(r'recording: byte (\d+): [^\n]+', message)
  assert match and int(match[1]) <= len(content), message


def attempt(read, content, backwards):
  """Reads `content`; returns True if accepted, and memory by its bound."""
  file = io.BytesIO(content)
  tracemalloc.reset_peak()
  before = tracemalloc.get_traced_memory()[0]
  try:
    events = read(file, backwards=backwards)
  except RecordingError as error:
    events = None
    check_message(str(error), content)
  peak = tracemalloc.get_traced_memory()[1] - before
  columns = COLUMN_BYTES * len(content) / FILE_BYTES[read]
  share = peak / (3 * columns + SPARE)
  assert share <= 1, f'{peak} bytes of memory for {len(content)} of a file'
  if events is not None:
    check_events(events, content)
  return events is not None, share


def main():
  """Fuzzes for some seconds; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seconds', type=float, default=120)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  rng = random.Random(arguments.seed)
  recordings = valid_recordings(rng)
  inputs, accepted, worst, failures = 0, 0, 0.0, 0
  tracemalloc.start()
  until = time.monotonic() + arguments.seconds
  while time.monotonic() < until and failures < MOST_FAILURES:
    content = damaged(rng, recordings)
    aedat = content.startswith(b'#') or rng.random() < 0.05
    read = read_aedat if aedat else read_n_mnist
    backwards = rng.choice(['error', 'sort'])
    inputs += 1
    try:
      good, share = attempt(read, content, backwards)
      accepted, worst = accepted + good, max(worst, share)
    except Exception:
      failures += 1
      with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(content)
      print(f'{read.__name__}, backwards={backwards!r}, saved as {file.name}')
      traceback.print_exc(file=sys.stdout)
  tracemalloc.stop()
  print(
    f'{inputs} inputs: {accepted} accepted, '
    f'{inputs - accepted - failures} clean errors, {failures} failures; '
    f'memory at most {worst:.2f} of what is allowed'
  )
  return int(failures > 0)


if __name__ == '__main__':
  sys.exit(main())
