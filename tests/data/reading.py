"""Shared by the tests of readers: recordings and expectations of them."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import strategies as st

from mlf_jax.data.events import RecordingError, formats
from mlf_jax.errors import UserError
from tests.data import recordings

READERS = {
  'aedat3': formats.read_aedat,
  'aedat2': formats.read_aedat,
  'n_mnist': formats.read_n_mnist,
}
HEADER = recordings.aedat3_header()
HEADER2 = recordings.aedat2([])
GOOD = [(5, 1, 2, 1), (7, 30, 0, 0), (7, 0, 33, 1), (900, 3, 4, 0)]
# Events that are decoded at once; the last holds all of a test.
BLOCKS = (1, 2, 7, 1 << 15)
blocks = st.sampled_from(BLOCKS)
NAME = 'folder/user01.aedat'
# Numbers of events that are dropped.
numbers = st.sets(st.integers(0, 29), max_size=12)


def write(name, events, **options):
  return getattr(recordings, name)(events, **options)


class Named(io.BytesIO):
  name = NAME


def opened_path(content, folder):
  path = folder / 'recording'
  path.write_bytes(content)
  return path


def assert_holds(events, expected, sensor_size=(128, 128), dropped=0):
  assert (events.sensor_size, events.dropped) == (sensor_size, dropped)
  dtypes = (np.int64, np.uint16, np.uint16, np.uint8)
  for i, (name, dtype) in enumerate(zip('txyp', dtypes, strict=True)):
    column = getattr(events, name)
    assert column.dtype == dtype
    assert column.tolist() == [event[i] for event in expected]


def fails(content, problem, offset, read=formats.read_aedat, **options):
  with pytest.raises(RecordingError) as info:
    read(Named(content), **options)
  message = str(info.value)
  assert isinstance(info.value, UserError)
  assert message.startswith(f'{NAME}: byte {offset}: ')
  assert problem in message
  assert '\n' not in message


starts = st.integers(0, 1000)


def event_lists(side, gap, start=starts, size=30):
  """(t, x, y, p) in order of time, `gap` microseconds apart at most."""
  gaps = st.one_of(st.integers(0, 3), st.integers(0, gap))
  place = st.integers(0, side - 1)
  part = st.tuples(gaps, place, place, st.integers(0, 1))
  # Left to themselves, most lists are short.
  parts = st.lists(part, max_size=size) | st.lists(
    part, min_size=9, max_size=size
  )

  def summed(start, parts):
    times = itertools.accumulate(part[0] for part in parts)
    return [
      (start + t, *part[1:]) for t, part in zip(times, parts, strict=True)
    ]

  return st.builds(summed, start, parts)
