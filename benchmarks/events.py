"""Speed and memory of reading recordings: `python benchmarks/events.py`.

Prints the median of seven repetitions, in one process, of reading a file of
each format from disk and of making frames of its events. Memory is the peak
while a file is read, as a multiple of the columns that are returned: by
`tracemalloc`, and by the growth of the resident memory of a process that reads
nothing else.
"""

import argparse
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc

import jax
import numpy as np

from mlf_jax.data.events import read_aedat, read_n_mnist, to_frames

REPETITIONS = 7
# 12 frames of a tenth of the recording: two windows stay empty.
BINNINGS = {
  'window': {'window_us': 1_000_000},
  'span': {},
  'count': {},
}


def columns(number, side):
  """Columns t, x, y, p of `number` events in ten seconds."""
  rng = np.random.default_rng(0)
  t = np.sort(rng.integers(0, 10_000_000, number))
  x, y = rng.integers(0, side, (2, number))
  return t, x, y, rng.integers(0, 2, number)


def write_aedat3(path, number, packet):
  """Writes AEDAT 3.1 with `packet` events per packet."""
  t, x, y, p = columns(number, 128)
  rows = np.stack([x << 17 | y << 2 | p << 1 | 1, t], 1).astype('<u4')
  # Type and source are halves of the first word.
  header = np.array([1 << 16 | 1, 8, 4, 0, packet, packet, packet], '<u4')
  packets = np.empty((number // packet, 7 + 2 * packet), '<u4')
  packets[:, :7] = header
  packets[:, 7:] = rows.reshape(len(packets), -1)
  path.write_bytes(b'#!AER-DAT3.1\r\n#!END-HEADER\r\n' + packets.tobytes())


def write_aedat2(path, number):
  """Writes AEDAT 2.0 of a DVS128."""
  t, x, y, p = columns(number, 128)
  rows = np.stack([y << 8 | x << 1 | p, t], 1).astype('>u4')
  path.write_bytes(b'#!AER-DAT2.0\r\n' + rows.tobytes())


def write_n_mnist(path, number):
  """Writes N-MNIST; its clock wraps once."""
  t, x, y, p = columns(number, 34)
  rows = np.stack([x, y, p << 7 | t >> 16 & 127, t >> 8 & 255, t & 255], 1)
  path.write_bytes(rows.astype(np.uint8).tobytes())


FILES = {
  'AEDAT 3.1, packets of 8192': (write_aedat3, (8192,), read_aedat),
  'AEDAT 3.1, packets of 64': (write_aedat3, (64,), read_aedat),
  'AEDAT 2.0': (write_aedat2, (), read_aedat),
  'N-MNIST': (write_n_mnist, (), read_n_mnist),
}


def median_seconds(function):
  """Median time of a call, after a warm-up call."""
  function()
  seconds = []
  for _ in range(REPETITIONS):
    began = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - began)
  return statistics.median(seconds)


def traced_share(read, path):
  """Peak of traced memory while `path` is read, per byte of its events."""
  tracemalloc.start()
  events = read(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return peak / events.nbytes


def resident_share(name, path):
  """Growth of the resident memory of a new process, per byte of events."""
  command = [sys.executable, __file__, '--measure', name, str(path)]
  return float(subprocess.check_output(command))


def measure(name, path):
  """Reads one file and prints the growth of this process's memory."""
  read = FILES[name][2]
  before = most_resident()
  events = read(path)
  print((most_resident() - before) / events.nbytes)


def most_resident():
  """Peak of this process's resident memory in bytes; Linux only."""
  # `getrusage` would include the peak of the parent process.
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'VmHWM:\s*(\d+)', status)[1])


def main():
  """Measures every format, and every binning of the first."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--events', type=int, default=10_000_000)
  parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.measure:
    measure(*arguments.measure)
    return
  print(
    f'Python {platform.python_version()}, NumPy {np.__version__}, '
    f'JAX {jax.__version__}, {jax.devices()[0].device_kind}, '
    f'{os.cpu_count()} cores'
  )
  # Whole packets of every size.
  number = arguments.events // 8192 * 8192
  print(f'{number:,} events, median of {REPETITIONS} repetitions')
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'recording')
    for name, (write, options, read) in FILES.items():
      write(path, number, *options)
      seconds = median_seconds(lambda read=read: read(path))
      print(
        f'{name:28}{number / seconds / 1e6:7.1f} M events/s read, memory '
        f'{traced_share(read, path):.2f} x traced, '
        f'{resident_share(name, path):.2f} x resident',
        flush=True,
      )
    write_aedat3(path, number, 8192)
    events = read_aedat(path)
    for binning, window in BINNINGS.items():
      make = lambda e, b=binning, w=window: to_frames(e, 12, binning=b, **w)
      binned = median_seconds(lambda make=make: make(events))
      both = median_seconds(lambda make=make: make(read_aedat(path)))
      print(
        f'frames by {binning:18}{number / binned / 1e6:7.1f} M events/s binned,'
        f' {number / both / 1e6:.1f} read and binned',
        flush=True,
      )


if __name__ == '__main__':
  main()
