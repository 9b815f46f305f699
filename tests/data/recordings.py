"""Recordings of event cameras, written one event at a time.

They follow the descriptions of the formats, share nothing with the readers
and are slow. `events` is always an iterable of (t, x, y, p): microseconds,
column, row, polarity.
"""

import collections
import itertools
import struct

AEDAT3_LINES = ('#Format: RAW\r\n', '#Source 1: DVS128\r\n')
AEDAT2_LINES = ('# This is a raw AE data file\r\n', '# created for a test\r\n')


def aedat3(
  events, packet_sizes=(64,), *, invalid=(), between=(), lines=AEDAT3_LINES
):
  """Bytes of an AEDAT 3.1 file.

  Args:
    events: iterable of (t, x, y, p), t below 2^62.
    packet_sizes: most events of the packets, in turn and over again; a packet
      also ends where the overflow counter changes. 0 makes an empty packet.
    invalid: numbers of the events whose valid bit is not set.
    between: packets as `packet3` makes them, put before each packet of events
      in turn, what is left of them at the end.
    lines: header lines between the first and the last.
  """
  between = iter(between)
  content = bytearray(aedat3_header(lines))
  for packet in _packets(events, packet_sizes):
    content += next(between, b'')
    payload, valid, overflow = bytearray(), 0, 0
    for number, (t, x, y, p) in packet:
      overflow = t >> 31
      good = number not in invalid
      valid += good
      address = x << 17 | y << 2 | p << 1 | good
      payload += struct.pack('<Ii', address, t & 0x7FFFFFFF)
    content += packet3(1, payload, 8, overflow=overflow, valid=valid)
  return bytes(content) + b''.join(between)


def aedat3_header(lines=AEDAT3_LINES):
  """All that stands before the packets of an AEDAT 3.1 file."""
  text = '#!AER-DAT3.1\r\n' + ''.join(lines) + '#!END-HEADER\r\n'
  return text.encode('latin-1')


def packet3(kind, payload, size, number=None, *, overflow=0, valid=None):
  """A packet of AEDAT 3.1; `number` is what fits unless it is told."""
  if number is None:
    number = len(payload) // size
  if valid is None:
    valid = number
  return (
    struct.pack('<hhi', kind, 1, size)
    + struct.pack('<ii', size - 4, overflow)
    + struct.pack('<iii', number, number, valid)
    + payload
  )


def aedat2(events, *, special=(), lines=AEDAT2_LINES):
  """Bytes of an AEDAT 2.0 file of a DVS128.

  Args:
    events: iterable of (t, x, y, p); the file holds t modulo 2^32, the column
      counted from the right and the row from the bottom.
    special: numbers of the events that are marked as no change of light.
    lines: header lines after the first.
  """
  text = '#!AER-DAT2.0\r\n' + ''.join(lines)
  content = bytearray(text.encode('latin-1'))
  for number, (t, x, y, p) in enumerate(events):
    address = (127 - y) << 8 | (127 - x) << 1 | p
    if number in special:
      address |= 1 << 15
    content += struct.pack('>II', address, t % 2**32)
  return bytes(content)


def aedat2_of_davis(events, sensor_size, *, other=()):
  """Bytes of an AEDAT 2.0 file of a DAVIS camera.

  Args:
    events: iterable of (t, x, y, p).
    sensor_size: (height, width).
    other: numbers of the events that are made samples of a frame, or triggers.
  """
  height, width = sensor_size
  content = bytearray(b'#!AER-DAT2.0\r\n# a DAVIS\r\n#End Of ASCII Header\r\n')
  for number, (t, x, y, p) in enumerate(events):
    address = (height - 1 - y) << 22 | (width - 1 - x) << 12 | p << 11
    if number in other:
      address |= 1 << (31 if number % 2 else 10)
    content += struct.pack('>II', address, t % 2**32)
  return bytes(content)


def cifar10_dvs(events):
  """Bytes of a file of CIFAR10-DVS, from whose camera the scene was turned."""
  return aedat2((t, y, x, p) for t, x, y, p in events)


def n_mnist(events):
  """Bytes of a file of N-MNIST, which holds t modulo 2^23."""
  content = bytearray()
  for t, x, y, p in events:
    content += struct.pack('>BB', x, y)
    content += struct.pack('>I', p << 23 | t % 2**23)[1:]
  return bytes(content)


def _packets(events, sizes):
  """Parts of the events, each with one value of the overflow counter."""
  numbered = collections.deque(enumerate(events))
  sizes = itertools.cycle(sizes)
  while numbered:
    size, overflow = next(sizes), numbered[0][1][0] >> 31
    packet = []
    while numbered and len(packet) < size:
      if numbered[0][1][0] >> 31 != overflow:
        break
      packet.append(numbered.popleft())
    yield packet
