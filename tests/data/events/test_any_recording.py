"""Any recording by its suffix, whole, in pieces, and as frames."""

import sys
import tracemalloc

import numpy as np
import pytest

from mlf_jax.data.events import (
  SUFFIXES,
  FrameSpec,
  RecordingError,
  frames_of_file,
  read_recording,
  recording_pieces,
)
from mlf_jax.errors import UserError
from tests.data import recordings
from tests.data.reading import assert_holds

SIZE = (34, 34)
EVENTS = [(50 * i, i % 34, (i * i) % 34, i % 2) for i in range(100)]
FIELDS = [('t', 'i8'), ('x', 'u2'), ('y', 'i2'), ('p', '?')]
ARRAY = np.array(EVENTS, FIELDS)
COLUMNS = {name: ARRAY[name] for name in 'txyp'}


def hdf5(path, layout):
  h5py = pytest.importorskip('h5py')
  with h5py.File(path, 'w') as file:
    for name, array in layout.items():
      file[name] = array


def write(folder, name, layout=ARRAY):
  """Writes the events, or a layout of arrays, in the format of the suffix."""
  path = folder / name
  match path.suffix.lower():
    case '.npy':
      np.save(path, layout)
    case '.npz' if isinstance(layout, dict):
      np.savez(path, **layout)
    case '.npz':
      np.savez_compressed(path, anything=layout)
    case '.h5' | '.hdf5' if isinstance(layout, dict):
      hdf5(path, layout)
    case '.h5' | '.hdf5':
      hdf5(path, {f'events/{name}': layout[name] for name in 'txyp'})
    case '.bin':
      path.write_bytes(recordings.n_mnist(layout.tolist()))
    case '.aedat':
      path.write_bytes(recordings.aedat3(layout.tolist()))
    case _:
      faery = pytest.importorskip('faery')
      stream = faery.events_stream_from_array(
        layout.astype(faery.EVENTS_DTYPE), SIZE
      )
      stream.to_file(path, zero_t0=False)
  return path


def fails(path, problem, sensor=SIZE, **options):
  with pytest.raises(UserError, match=problem) as error:
    read_recording(path, sensor, **options)
  assert '\n' not in str(error.value)
  assert str(path) in str(error.value)


SENSORS = {'.aedat': 'dvs128'} | dict.fromkeys(
  ('.bin', '.npy', '.npz', '.h5', '.hdf5'), SIZE
)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_every_suffix_is_read_whole_and_in_pieces(tmp_path, suffix):
  path = write(tmp_path, f'name.of.recording{suffix}')
  sensor = SENSORS.get(suffix, '')
  size = (128, 128) if suffix == '.aedat' else SIZE
  whole = read_recording(path, sensor)
  assert_holds(whole, EVENTS, size)
  for events_per_piece in (1, 33, 100):
    pieces = [
      *recording_pieces(path, sensor, events_per_piece=events_per_piece)
    ]
    assert {len(piece) for piece in pieces[:-1]} <= {events_per_piece}
    joined = [np.concatenate([getattr(p, f) for p in pieces]) for f in 'txyp']
    for column, field in zip(joined, 'txyp', strict=True):
      np.testing.assert_array_equal(column, getattr(whole, field))
  for spec in (
    FrameSpec(3, 'window', 700, 4.0),
    FrameSpec(3, 'span'),
    FrameSpec(3, 'count'),
  ):
    frames = frames_of_file(path, spec, sensor)
    np.testing.assert_array_equal(frames, spec.frames(whole))
    assert frames.any((1, 2, 3)).all()


def test_other_files_of_the_same_suffix(tmp_path):
  old = tmp_path / 'old.AEDAT'
  old.write_bytes(recordings.aedat2_of_davis(EVENTS, (180, 240)))
  assert_holds(read_recording(old, 'davis240'), EVENTS, (180, 240))
  # AEDAT 4 under the suffix of its predecessors.
  new = write(tmp_path, 'new.aedat4').rename(tmp_path / 'new.aedat')
  assert_holds(read_recording(str(new)), EVENTS, SIZE)


@pytest.mark.parametrize(
  'layout',
  [
    COLUMNS,
    {'polarity': ARRAY['p'].astype('u1'), **{n: ARRAY[n] for n in 'yxt'}},
  ],
)
@pytest.mark.parametrize('suffix', ['npz', 'h5'])
def test_a_column_per_array(tmp_path, layout, suffix):
  path = write(tmp_path, f'a.{suffix}', layout)
  assert_holds(read_recording(path, SIZE), EVENTS, SIZE)


@pytest.mark.parametrize('name', ['events', 'CD/events'])
def test_hdf5_with_one_dataset(tmp_path, name):
  path = write(tmp_path, 'a.h5', {name: ARRAY, 'CD/indexes': np.arange(3)})
  assert_holds(read_recording(path, SIZE), EVENTS, SIZE)


@pytest.mark.parametrize('name', ['a.npy', 'a.npz', 'a.hdf5', 'a.bin'])
def test_the_size_of_the_sensor_is_asked_for(tmp_path, name):
  path = write(tmp_path, name)
  fails(path, r'the size of its sensor: give sensor=\(height, width\)', '')
  fails_of_name = pytest.raises(UserError, match="sensor 'dvs' is unknown")
  with fails_of_name:
    read_recording(path, 'dvs')
  frames = frames_of_file(path, FrameSpec(2, 'span'), '34x34')
  assert frames.shape == (2, 34, 34, 2)


@pytest.mark.parametrize('name', ['a.npy', 'a.h5', 'a.aedat', 'a.bin'])
def test_time_that_goes_back(tmp_path, name):
  events = ARRAY.copy()
  events['t'][[41, 42]] = events['t'][[42, 41]]
  path = write(tmp_path, name, events)
  sensor = SENSORS[path.suffix]
  fails(path, "back.*2100.* to 2050 us.*backwards='sort'", sensor)
  in_order = read_recording(path, sensor, backwards='sort')
  size = (128, 128) if name == 'a.aedat' else SIZE
  order = [*range(41), 42, 41, *range(43, 100)]
  assert_holds(in_order, [events[i].tolist() for i in order], size)
  # As a file, for whatever takes files alone.
  np.save(tmp_path / 'sorted.npy', in_order.to_array())
  with pytest.raises(UserError, match=r"back.*np\.save\('sorted\.npy', "):
    frames_of_file(path, FrameSpec(2, 'span'), sensor)
  assert frames_of_file(
    tmp_path / 'sorted.npy', FrameSpec(2, 'span'), size
  ).any()
  # From the last event of a piece to the first of the next.
  with pytest.raises(RecordingError, match='back'):
    list(recording_pieces(path, sensor, events_per_piece=42))
  with pytest.raises(UserError, match="did you mean 'sort'"):
    read_recording(path, sensor, backwards='sorted')


@pytest.mark.parametrize(
  ('name', 'layout', 'problem'),
  [
    ('a.npy', ARRAY['t'], 'fields t, x, y and p or polarity, here there are'),
    ('a.npy', ARRAY[['t', 'x', 'y']], 'and p or polarity, here t, x, y$'),
    ('a.npy', ARRAY[None], r'must have one axis, of one length, got \(1, 100'),
    ('a.npy', ARRAY.astype(object), r'cannot be read \(.*object'),
    ('a.npz', {'t': ARRAY, 'u': ARRAY}, 'it has t, u, but neither arrays t, x'),
    ('a.npz', {**COLUMNS, 'x': ARRAY['x'][1:]}, r'length, got \(99,\), \(100,'),
    (
      'a.npz',
      {**COLUMNS, 't': ARRAY['t'] / 2},
      "'t' must hold integers, got f",
    ),
    ('a.h5', {'data': ARRAY}, 'it has data, .*a group or dataset events with'),
    ('a.h5', {'events/t': ARRAY['t']}, 'and p or polarity, here t$'),
    ('a.h5', {}, 'it has nothing, but neither'),
  ],
)
def test_arrays_that_are_no_events(tmp_path, name, layout, problem):
  path = write(tmp_path, name, layout)
  with pytest.raises(RecordingError):
    read_recording(path, SIZE)
  fails(path, problem)


@pytest.mark.parametrize('suffix', ['npy', 'h5'])
def test_an_impossible_value_is_named_by_the_number_of_its_event(
  tmp_path, suffix
):
  events = ARRAY.copy()
  events['x'][77] = 34
  path = write(tmp_path, f'a.{suffix}', events)
  with pytest.raises(RecordingError, match='event 77 has x = 34, outside 0 to'):
    list(recording_pieces(path, SIZE, events_per_piece=10))


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_files_that_are_no_recording(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  if suffix in ('.h5', '.hdf5'):
    pytest.importorskip('h5py')
  elif suffix in ('.raw', '.dat', '.aedat4', '.es'):
    pytest.importorskip('faery')
  fails(path, 'cannot be opened', SENSORS.get(suffix, ''))
  path.write_bytes(b'sixteen letters..')
  fails(path, 'this is no|cannot be read|truncated', SENSORS.get(suffix, ''))


def test_mistakes(tmp_path):
  fails('a.csv', 'no suffix of a recording: .aedat, .bin, .raw, .dat, .aedat4')
  fails('raw', 'no suffix of a recording')
  with pytest.raises(UserError, match='named by its path, got None'):
    read_recording(None)
  path = write(tmp_path, 'a.npy')
  with pytest.raises(UserError, match='events_per_piece must be positive'):
    next(recording_pieces(path, SIZE, events_per_piece=0))
  with pytest.raises(UserError, match='crop must be at most the sensor, 34'):
    frames_of_file(path, FrameSpec(2, 'span', crop=(35, 1)), SIZE)


def test_without_h5py_one_line_says_how_to_install_it(tmp_path, monkeypatch):
  path = write(tmp_path, 'a.h5')
  monkeypatch.setitem(sys.modules, 'h5py', None)
  with pytest.raises(UserError, match=r'need h5py: pip install "mlf_jax\[even'):
    read_recording(path, SIZE)


def test_windows_are_read_up_to_the_last(tmp_path):
  """What is damaged after it is not looked at."""
  events = ARRAY.copy()
  events['x'][99] = 34
  path = write(tmp_path, 'a.npy', events)
  spec = FrameSpec(2, 'window', 700)
  pieces = recording_pieces(path, SIZE, events_per_piece=30)
  frames = spec.frames_of_pieces(lambda: pieces)
  assert frames.sum() == 28
  fails(path, 'event 99 has x = 34')


@pytest.mark.parametrize('name', ['a.npy', 'a.raw', 'a.aedat4'])
def test_memory_does_not_grow_with_the_recording(tmp_path, name):
  """These events take 13 MB as a whole."""
  number = 1_000_000
  random = np.random.default_rng(0)
  events = np.zeros(number, FIELDS)
  events['t'] = np.arange(number)
  for field in 'xy':
    events[field] = random.integers(0, 34, number)
  path = write(tmp_path, name, events)
  del events
  spec = FrameSpec(3, 'count')
  pieces = lambda: recording_pieces(path, SIZE, events_per_piece=20_000)
  spec.frames_of_pieces(pieces)  # What is imported takes memory too.
  tracemalloc.start()
  frames = spec.frames_of_pieces(pieces)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert frames.any((1, 2, 3)).all()
  assert peak < 4e6
