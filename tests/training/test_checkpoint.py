"""A checkpoint comes back bit for bit, or not at all and with a line."""

import os
import re
import resource
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlf_jax.errors import UserError
from mlf_jax.training.checkpoint import CheckpointStore


def make_state(seed=0, width=16):
  """Leaves of several dtypes and ranks, with numbers that are no numbers."""
  kernel = np.random.default_rng(seed).normal(size=(3, 3, 8, width))
  return {
    'step': jnp.asarray(seed, jnp.int32),
    'params': {
      'kernel': jnp.asarray(kernel, jnp.float32),
      'bias': jnp.full((width + 1,), -0.0, jnp.bfloat16),
    },
    'stats': {'mean': jnp.array([jnp.nan, jnp.inf, 1e-45], jnp.float32)},
    'a': {'b': jnp.ones(3, jnp.uint8)},
    # What optimisers keep: tuples and nothing.
    'b': (jnp.arange(3.0), (), optax.EmptyState()),
    'd': None,
  }


def assert_same_bits(state, expected):
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_all(directory, accuracies, **kwargs):
  """Saves one state a step, from step 1 on, and closes the store."""
  with CheckpointStore(directory, **kwargs) as store:
    for step, accuracy in enumerate(accuracies, start=1):
      metrics = None if accuracy is None else {'test/accuracy': accuracy}
      store.save(step, make_state(step), metrics)


def files_by_size(directory):
  files = [path for path in directory.rglob('*') if path.is_file()]
  return sorted(files, key=lambda path: path.stat().st_size)


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'checkpoints'


@pytest.fixture
def lines():
  return []


# --- Saving and restoring ---


@pytest.mark.parametrize('abstract', [False, True])
def test_round_trip_is_bit_for_bit_and_silent(directory, abstract, capfd):
  state = make_state(7)
  metrics = {'test/accuracy': 0.1, 'train/loss': float('inf')}
  template = jax.eval_shape(lambda: state) if abstract else state
  with CheckpointStore(os.fspath(directory)) as store:
    store.save(7, state, metrics)
    store.save(7, make_state(8))  # A step that is there is left as it is.
    step, restored, restored_metrics = store.restore(template)
  assert (step, restored_metrics) == (7, metrics)
  assert_same_bits(restored, state)
  assert not restored['step'].committed
  assert capfd.readouterr() == ('', '')


def test_empty_store_restores_nothing_and_creates_nothing(directory):
  with CheckpointStore(directory) as store:
    for which in ('last', 'best'):
      assert store.restore(make_state(), which) is None
    assert store.steps() == [] and store.best_step() is None
  assert not directory.exists()


def buffers(leaf):
  return [
    shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards
  ]


@pytest.mark.parametrize('devices', [1, 8])
def test_state_is_donated_after_saving_and_after_restoring(directory, devices):
  """Nothing keeps hold of the buffers, and NumPy owns none of them."""
  mesh = Mesh(np.array(jax.devices()[:devices]), ('data',))
  replicated = NamedSharding(mesh, PartitionSpec())
  update = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0
  )
  state = jax.device_put(make_state(1), replicated)
  with CheckpointStore(directory) as store:
    store.save(1, state)
    for _ in range(2):
      kernel = state['params']['kernel']
      assert kernel.sharding == replicated
      before = buffers(kernel)
      updated = update(state)
      assert kernel.is_deleted()
      assert buffers(updated['params']['kernel']) == before
      _, state, _ = store.restore(updated)
      # To look at an array through NumPy may keep it from being donated.
      assert_same_bits(jax.tree.map(jnp.copy, state), make_state(1))


_READER = """
import pathlib, sys
import jax, numpy as np
import orbax.checkpoint as ocp
assert len(jax.devices()) == 1
state = ocp.StandardCheckpointer().restore(sys.argv[1])
assert state['d'] is None and state['b']['1'] == state['b']['2'] == {}
np.savez(sys.argv[2], step=state['step'], **state['params'])
"""


def test_a_program_without_this_library_reads_it_on_other_devices(
  directory, tmp_path
):
  mesh = Mesh(np.array(jax.devices()), ('data',))
  state = jax.device_put(make_state(3), NamedSharding(mesh, PartitionSpec()))
  with CheckpointStore(directory) as store:
    store.save(3, state)
  subprocess.run(
    [sys.executable, '-c', _READER, directory / '3/state', tmp_path / 'x.npz'],
    check=True,
  )
  read = np.load(tmp_path / 'x.npz')
  assert read['step'] == 3
  expected = make_state(3)['params']
  np.testing.assert_array_equal(read['kernel'], expected['kernel'])
  # NumPy stores no bfloat16: its bytes come back as they are.
  assert read['bias'].tobytes() == np.asarray(expected['bias']).tobytes()
  # The sums are those of the usual command.
  sums = ['sha256sum', '--check', '--quiet', '--strict', 'SHA256SUMS']
  subprocess.run(sums, cwd=directory / '3', check=True)


# --- Which are kept ---


@pytest.mark.parametrize(
  ('accuracies', 'steps', 'best'),
  [
    ([0.1, 0.9, 0.2, 0.3, 0.4], [2, 4, 5], 2),
    ([0.1, 0.2, 0.3, 0.4, 0.5], [4, 5], 5),
    # Ties go to the later step.
    ([0.9, 0.9, 0.2, 0.3, 0.4], [2, 4, 5], 2),
    # Neither no metric nor NaN is ever the best.
    ([0.1, None, float('nan'), None, None], [1, 4, 5], 1),
    ([None, None, None], [2, 3], None),
  ],
)
def test_keeps_the_last_and_the_best(directory, lines, accuracies, steps, best):
  save_all(directory, accuracies, keep=2)
  with CheckpointStore(directory, keep=2, warn=lines.append) as store:
    assert (store.steps(), store.best_step()) == (steps, best)
    step, state, _ = store.restore(make_state(), 'best')
    assert step == (best or steps[-1])
    assert_same_bits(state, make_state(step))
  # Without a best one, the last is taken, with a line.
  assert len(lines) == (best is None)
  assert sorted(int(path.name) for path in directory.iterdir()) == steps


def test_best_of_an_earlier_run_is_kept(directory):
  save_all(directory, [0.9, 0.1], keep=1)
  with CheckpointStore(directory, keep=1) as store:
    for step in (3, 4):
      store.save(step, make_state(step), {'test/accuracy': 0.2})
    store.wait()
    assert (store.steps(), store.best_step()) == ([1, 4], 1)


# --- Damage ---


def change(path, change_content):
  path.write_bytes(change_content(path.read_bytes()))


def flip_a_byte(step_directory, position=0.5):
  path, flip = files_by_size(step_directory)[-1], bytearray.__setitem__

  def flipped(content):
    content, i = bytearray(content), int(position * (len(content) - 1))
    flip(content, i, content[i] ^ 0x10)
    return content

  change(path, flipped)


DAMAGES = {
  'truncated': lambda d: change(
    files_by_size(d)[-1], lambda content: content[: len(content) // 2]
  ),
  'one byte': flip_a_byte,
  'no file': lambda d: files_by_size(d)[-1].unlink(),
  'no record': lambda d: (d / 'record' / 'metadata').unlink(),
  'no sums': lambda d: (d / 'SHA256SUMS').unlink(),
  'shorter sums': lambda d: change(
    d / 'SHA256SUMS', lambda content: content[: content.index(b'\n') + 1]
  ),
  'metric': lambda d: change(
    d / 'record' / 'metadata', lambda content: content.replace(b'0.3', b'0.4')
  ),
  'empty': lambda d: [path.unlink() for path in files_by_size(d)],
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_corrupt_checkpoint_is_replaced(directory, lines, damage):
  save_all(directory, [0.1, 0.2, 0.3])
  DAMAGES[damage](directory / '3')
  with CheckpointStore(directory, warn=lines.append) as store:
    step, state, _ = store.restore(make_state())
    assert step == 2
    assert_same_bits(state, make_state(2))
    (line,) = lines
    aside = directory.parent / 'checkpoints_corrupt' / '3'
    assert 'step 3' in line and str(directory / '3') in line
    assert ('No such file' in line) == damage.startswith(('no ', 'empty'))
    assert line.endswith(f'moved to {aside}') and '\n' not in line
    assert aside.is_dir()
    # The step can be saved again, and be corrupt again.
    store.save(3, make_state(3), {'test/accuracy': 0.3})
    assert store.restore(make_state())[0] == 3
    flip_a_byte(directory / '3')
    assert store.restore(make_state())[0] == 2
    assert aside.with_name('3_2').is_dir()


def test_every_byte_of_the_largest_file_is_guarded(directory, lines):
  save_all(directory, [0.1])
  intact = files_by_size(directory / '1')[-1].read_bytes()
  with CheckpointStore(directory, warn=lines.append) as store:
    for position in np.linspace(0, 1, 20):
      flip_a_byte(directory / '1', position)
      try:
        _, state, _ = store.restore(make_state())
      except UserError:
        aside = directory.parent / 'checkpoints_corrupt' / '1'
        aside.rename(directory / '1')
      else:
        assert_same_bits(state, make_state(1))
      files_by_size(directory / '1')[-1].write_bytes(intact)
  assert len(lines) >= 15


def test_corrupt_best_falls_back_to_the_last(directory, capsys):
  save_all(directory, [0.9, 0.1, 0.2])
  flip_a_byte(directory / '1')
  with CheckpointStore(directory) as store:
    assert store.restore(make_state(), 'best')[0] == 3
    assert (store.steps(), store.best_step()) == ([2, 3], 3)
  out, err = capsys.readouterr()
  assert (out, err.count('\n')) == ('', 1)


def test_all_corrupt_is_an_error(directory, lines):
  save_all(directory, [0.1, 0.2])
  for step in ('1', '2'):
    flip_a_byte(directory / step)
  with CheckpointStore(directory, warn=lines.append) as store:
    with pytest.raises(UserError, match='no intact checkpoint') as caught:
      store.restore(make_state())
    assert '\n' not in str(caught.value) and len(lines) == 2
    # Nor is the store an empty one from now on.
    with pytest.raises(UserError, match='the corrupt ones are in'):
      store.restore(make_state())


def test_leftover_of_a_killed_run_goes_with_the_next_save(directory):
  """It may be another process's, still writing, while this one only reads."""
  save_all(directory, [0.1])
  leftover = directory / '2.orbax-checkpoint-tmp'
  leftover.mkdir()
  with CheckpointStore(directory) as store:
    assert store.restore(make_state())[0] == 1
    assert leftover.exists()
    store.save(3, make_state(3))
  assert sorted(path.name for path in directory.iterdir()) == ['1', '3']


# --- Mistakes and failures ---


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      make_state(width=8),
      'params/kernel is float32[3, 3, 8, 16] there and float32[3, 3, 8, 8]',
    ),
    ({'step': jnp.uint32(1)}, 'step is int32[] there and uint32[] here'),
    ({'more': jnp.ones(3)}, 'more is missing there and float32[3] here'),
    ({'stats': {}}, 'stats/mean is float32[3] there and missing here'),
  ],
)
def test_different_model_is_an_error(directory, lines, changes, message):
  save_all(directory, [0.1])
  with CheckpointStore(directory, warn=lines.append) as store:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
      store.restore({**make_state(), **changes})
    assert '\n' not in str(caught.value)
    assert store.steps() == [1]
  assert lines == []


def test_directory_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with CheckpointStore(tmp_path / 'file' / 'checkpoints') as store:
    with pytest.raises(UserError, match=r'file/checkpoints: Not a dir') as e:
      store.save(1, make_state())
    assert '\n' not in str(e.value)


def test_corrupt_checkpoint_that_cannot_be_moved(directory, lines):
  save_all(directory, [0.1, 0.2])
  flip_a_byte(directory / '2')
  (directory.parent / 'checkpoints_corrupt').touch()
  with CheckpointStore(directory, warn=lines.append) as store:
    assert store.restore(make_state())[0] == 1
  assert lines[0].endswith('left there: File exists')


def test_full_disk_is_an_error_and_saving_goes_on(directory):
  """A limit on the size of a file fails writes as a full disk does."""
  noise = {'w': jax.random.normal(jax.random.key(0), (1 << 16,))}
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  with CheckpointStore(directory, keep=1) as store:
    store.save(1, noise)
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
      store.save(2, noise)
      with pytest.raises(UserError, match='cannot save a checkpoint') as e:
        store.wait()
      assert '\n' not in str(e.value)
      assert store.restore(noise)[0] == 1
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
      signal.signal(signal.SIGXFSZ, ignored)
    store.save(2, noise)
    store.wait()
    assert store.steps() == [2]
