"""A checkpoint comes back bit for bit, or not at all and with a line."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlf_jax.errors import UserError
from mlf_jax.training.checkpoint import CheckpointStore


@flax.struct.dataclass
class TrainState:
  step: jax.Array
  params: dict
  batch_stats: dict
  opt_state: optax.OptState


@jax.jit
def first_update(params):
  optimizer = optax.MultiSteps(
    optax.chain(
      optax.add_decayed_weights(1e-4),
      optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9),
    ),
    every_k_schedule=2,
  )
  gradients = jax.tree.map(jnp.ones_like, params)
  return optimizer.update(gradients, optimizer.init(params), params)[1]


def make_state(seed=0, width=16):
  """A state as a training loop has it, after one update."""
  key = jax.random.key(seed)
  params = {
    'conv': {'kernel': jax.random.normal(key, (3, 3, 8, width))},
    'head': {'bias': jnp.full((width + 1,), -0.0, jnp.bfloat16)},
  }
  # Optax's schedules divide an int32 count by a float.
  with jax.numpy_dtype_promotion('standard'):
    opt_state = first_update(params)
  return TrainState(
    step=jnp.asarray(seed, jnp.int32),
    params=params,
    batch_stats={'mean': jnp.array([jnp.nan, jnp.inf, 1e-45], jnp.float32)},
    opt_state=opt_state,
  )


def abstract(state):
  return jax.eval_shape(lambda: state)


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


def run_python(code, *args, **kwargs):
  return subprocess.Popen(
    [sys.executable, '-W', 'error', '-c', textwrap.dedent(code), *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **kwargs,
  )


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'checkpoints'


@pytest.fixture
def lines():
  return []


# Saving and restoring.


@pytest.mark.parametrize('as_template', [lambda state: state, abstract])
def test_round_trip_is_bit_for_bit(directory, as_template):
  state = make_state(7)
  metrics = {'test/accuracy': 0.1, 'train/loss': float('inf')}
  with CheckpointStore(directory) as store:
    store.save(7, state, metrics)
    step, restored, restored_metrics = store.restore(as_template(state))
  assert step == 7
  assert restored_metrics == metrics
  assert_same_bits(restored, state)


def test_names_and_sizes_that_invite_mistakes(directory):
  state = {
    'a': {'b': jnp.ones(3, jnp.uint8)},
    'a/b': jnp.ones(1, bool),
    'b': [jnp.arange(3.0), ()],
    'c': jnp.zeros((0, 3)),
    'd': None,
    '1': jnp.array(1.5, jnp.bfloat16),
  }
  with CheckpointStore(directory) as store:
    store.save(1, state)
    _, restored, _ = store.restore(state)
  assert_same_bits(restored, state)


def test_empty_store_restores_nothing_and_creates_nothing(directory):
  with CheckpointStore(directory) as store:
    assert store.restore(make_state()) is None
    assert store.restore(make_state(), 'best') is None
    assert store.steps() == []
    assert store.best_step() is None
  assert not directory.exists()


@pytest.fixture(params=[1, 8])
def replicated(request):
  """A sharding over one device or eight."""
  mesh = Mesh(np.array(jax.devices()[: request.param]), ('data',))
  return NamedSharding(mesh, PartitionSpec())


def buffers(leaf):
  return [
    shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards
  ]


def test_state_may_be_donated_right_after_save(directory, replicated):
  state = jax.device_put(make_state(1), replicated)
  expected = make_state(1)
  update = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0
  )
  with CheckpointStore(directory) as store:
    store.save(1, state)
    before = buffers(state.params['conv']['kernel'])
    updated = update(state)
    # The update did reuse the buffers, so nothing kept hold of them.
    assert buffers(updated.params['conv']['kernel']) == before
    _, restored, _ = store.restore(updated)
  assert_same_bits(restored, expected)


def test_restored_state_is_donated(directory, replicated):
  state = jax.device_put(make_state(1), replicated)
  save_all(directory, [0.5])
  with CheckpointStore(directory) as store:
    _, restored, _ = store.restore(state)
  # To look at an array through NumPy may keep it from being donated.
  assert_same_bits(jax.tree.map(jnp.copy, restored), state)

  update = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0
  )
  kernel = restored.params['conv']['kernel']
  assert kernel.sharding == replicated
  before = buffers(kernel)
  updated = update(restored)
  assert kernel.is_deleted()
  assert buffers(updated.params['conv']['kernel']) == before


def test_sharded_leaf_keeps_its_sharding(directory):
  mesh = Mesh(np.array(jax.devices()), ('data',))
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  state = {'table': jax.device_put(jnp.arange(16.0), sharding)}
  with CheckpointStore(directory) as store:
    store.save(1, state)
    _, restored, _ = store.restore(
      {'table': jax.ShapeDtypeStruct((16,), jnp.float32, sharding=sharding)}
    )
  assert restored['table'].sharding == sharding
  assert_same_bits(restored, state)


def test_uncommitted_state_stays_uncommitted(directory):
  state = make_state(1)
  save_all(directory, [0.5])
  with CheckpointStore(directory) as store:
    _, restored, _ = store.restore(state)
  assert not restored.step.committed


def test_another_process_resumes(directory):
  child = run_python(
    """
    import sys
    import jax.numpy as jnp
    from mlf_jax.training.checkpoint import CheckpointStore
    with CheckpointStore(sys.argv[1]) as store:
      store.save(3, {'w': jnp.arange(5.0)}, {'test/accuracy': 0.5})
    """,
    str(directory),
  )
  out, err = child.communicate(timeout=120)
  assert (child.returncode, out, err) == (0, '', '')
  with CheckpointStore(directory) as store:
    assert store.best_step() == 3
    step, state, metrics = store.restore({'w': jnp.zeros(5)})
  assert (step, metrics) == (3, {'test/accuracy': 0.5})
  assert_same_bits(state, {'w': jnp.arange(5.0)})


# What is kept.


@pytest.mark.parametrize(
  ('accuracies', 'steps', 'best'),
  [
    ([0.1, 0.9, 0.2, 0.3, 0.4], [2, 4, 5], 2),
    ([0.1, 0.2, 0.3, 0.4, 0.5], [4, 5], 5),
    # The later one of two equals.
    ([0.9, 0.9, 0.2, 0.3, 0.4], [2, 4, 5], 2),
    # Neither no metric nor NaN is ever the best.
    ([0.1, None, float('nan'), None, None], [1, 4, 5], 1),
    ([None, None, None], [2, 3], None),
  ],
)
def test_keeps_the_last_and_the_best(directory, accuracies, steps, best):
  save_all(directory, accuracies, keep=2)
  with CheckpointStore(directory, keep=2) as store:
    assert (store.steps(), store.best_step()) == (steps, best)
  assert sorted(int(path.name) for path in directory.iterdir()) == steps


def test_best_of_an_earlier_run_is_kept(directory):
  save_all(directory, [0.9, 0.1], keep=1)
  with CheckpointStore(directory, keep=1) as store:
    for step in (3, 4):
      store.save(step, make_state(step), {'test/accuracy': 0.2})
    store.wait()
    assert (store.steps(), store.best_step()) == ([1, 4], 1)
    step, state, _ = store.restore(make_state(), 'best')
    assert step == 1
    assert_same_bits(state, make_state(1))


def test_best_without_any_ranked_is_the_last_with_a_line(directory, lines):
  save_all(directory, [None, None])
  with CheckpointStore(directory, warn=lines.append) as store:
    assert store.restore(make_state(), 'best')[0] == 2
  assert len(lines) == 1
  assert 'test/accuracy' in lines[0]


def test_saving_a_step_again_changes_nothing(directory):
  with CheckpointStore(directory) as store:
    store.save(1, make_state(1), {'test/accuracy': 0.5})
    store.save(1, make_state(2))
    _, state, metrics = store.restore(make_state())
  assert metrics == {'test/accuracy': 0.5}
  assert_same_bits(state, make_state(1))


def test_step_by_number(directory):
  save_all(directory, [0.1, 0.2, 0.3])
  with CheckpointStore(directory) as store:
    step, state, _ = store.restore(make_state(), 2)
    assert step == 2
    assert_same_bits(state, make_state(2))
    with pytest.raises(UserError, match=r'no checkpoint of step 9.*1, 2, 3$'):
      store.restore(make_state(), 9)


# Damage.


def truncate(step_directory):
  largest = files_by_size(step_directory)[-1]
  os.truncate(largest, largest.stat().st_size // 2)


def flip_a_byte(step_directory):
  largest = files_by_size(step_directory)[-1]
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)


def delete_a_file(step_directory):
  files_by_size(step_directory)[-1].unlink()


def delete_the_record(step_directory):
  (step_directory / 'record' / 'metadata').unlink()


def change_a_metric(step_directory):
  path = step_directory / 'record' / 'metadata'
  path.write_text(path.read_text().replace('0.3', '0.4'))


def empty(step_directory):
  for path in files_by_size(step_directory):
    path.unlink()


DAMAGES = [
  truncate,
  flip_a_byte,
  delete_a_file,
  delete_the_record,
  change_a_metric,
  empty,
]


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('which', ['last', 'best'])
def test_corrupt_checkpoint_is_replaced(directory, lines, damage, which):
  # Step 3 is both the last and the best.
  save_all(directory, [0.1, 0.2, 0.3])
  damage(directory / '3')
  with CheckpointStore(directory, warn=lines.append) as store:
    step, state, _ = store.restore(make_state(), which)
    assert step == 2
    assert_same_bits(state, make_state(2))
    aside = directory.parent / 'checkpoints_corrupt' / '3'
    if lines:
      (line,) = lines
      assert 'step 3' in line
      assert str(directory / '3') in line
      assert line.endswith(f'moved to {aside}')
      assert '\n' not in line
      assert aside.is_dir()
    else:
      # Without its record it was not known as the best.
      assert which == 'best'
      assert damage in (delete_the_record, empty)
      return

    # The step can be saved again, and be corrupt again.
    store.save(3, make_state(3), {'test/accuracy': 0.3})
    assert store.restore(make_state(), which)[0] == 3
    flip_a_byte(directory / '3')
    assert store.restore(make_state(), which)[0] == 2
    assert aside.with_name('3_2').is_dir()


def test_every_byte_of_the_largest_file_is_guarded(directory, lines):
  save_all(directory, [0.1])
  largest = files_by_size(directory / '1')[-1]
  intact = largest.read_bytes()
  with CheckpointStore(directory, warn=lines.append) as store:
    for position in np.linspace(0, len(intact) - 1, 20, dtype=int):
      content = bytearray(intact)
      content[position] ^= 0x10
      largest.write_bytes(content)
      try:
        _, state, _ = store.restore(make_state())
      except UserError:
        aside = directory.parent / 'checkpoints_corrupt' / '1'
        aside.rename(directory / '1')
      else:
        assert_same_bits(state, make_state(1))
  assert len(lines) >= 15


def test_corrupt_best_falls_back_to_the_last(directory, lines):
  save_all(directory, [0.9, 0.1, 0.2])
  flip_a_byte(directory / '1')
  with CheckpointStore(directory, warn=lines.append) as store:
    assert store.restore(make_state(), 'best')[0] == 3
    assert store.steps() == [2, 3]
    assert store.best_step() == 3
  assert len(lines) == 1


def test_all_corrupt_is_an_error(directory, lines):
  save_all(directory, [0.1, 0.2])
  for step in ('1', '2'):
    truncate(directory / step)
  with CheckpointStore(directory, warn=lines.append) as store:
    with pytest.raises(UserError, match='no intact checkpoint') as caught:
      store.restore(make_state())
    assert '\n' not in str(caught.value)
    assert len(lines) == 2
    # Nor is the store an empty one from now on.
    with pytest.raises(UserError, match='the corrupt ones are in'):
      store.restore(make_state())


def test_corrupt_step_by_number_is_not_replaced(directory, lines):
  save_all(directory, [0.1, 0.2])
  truncate(directory / '1')
  with CheckpointStore(directory, warn=lines.append) as store:
    with pytest.raises(UserError, match='no intact checkpoint'):
      store.restore(make_state(), 1)
    assert store.steps() == [2]
  assert len(lines) == 1


def test_corruption_goes_to_stderr_by_default(directory, capsys):
  save_all(directory, [0.1, 0.2])
  truncate(directory / '2')
  with CheckpointStore(directory) as store:
    store.restore(make_state())
  out, err = capsys.readouterr()
  assert out == ''
  assert err.count('\n') == 1


def test_killed_while_saving(directory):
  child = run_python(
    """
    import sys
    import jax.numpy as jnp
    import numpy as np
    from mlf_jax.training.checkpoint import CheckpointStore
    store = CheckpointStore(sys.argv[1])
    store.save(1, {'w': jnp.arange(4.0)})
    store.wait()
    # Noise, for it not to be compressed.
    large = np.random.default_rng(0).random(1 << 26, np.float32)
    store.save(2, {'w': jnp.asarray(large)})
    store.wait()
    """,
    str(directory),
  )
  try:
    deadline = time.monotonic() + 120
    while not list(directory.glob('2.*/state*/checkpoint')):
      assert child.poll() is None, child.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.005)
  finally:
    child.send_signal(signal.SIGKILL)
    child.communicate()
  (leftover,) = directory.glob('2.*')

  with CheckpointStore(directory) as store:
    step, state, _ = store.restore({'w': jnp.zeros(4)})
    assert step == 1
    assert_same_bits(state, {'w': jnp.arange(4.0)})
    assert leftover.exists()  # It may be another process's, still writing.
    store.save(3, {'w': jnp.arange(4.0)})
    assert not leftover.exists()
  assert sorted(path.name for path in directory.iterdir()) == ['1', '3']


# Mistakes and failures.


def change_shape(state):
  return make_state(width=8)


def change_dtype(state):
  return state.replace(step=jnp.zeros((), jnp.uint32))


def add_a_leaf(state):
  return state.replace(batch_stats={**state.batch_stats, 'var': jnp.ones(3)})


def drop_a_leaf(state):
  return state.replace(batch_stats={})


@pytest.mark.parametrize(
  ('change', 'name'),
  [
    (change_shape, ".params['conv']['kernel'] is float32[3, 3, 8, 16] there"),
    (change_dtype, '.step is int32[] there and uint32[] here'),
    (add_a_leaf, ".batch_stats['var'] is missing there"),
    (drop_a_leaf, ".batch_stats['mean'] is float32[3] there and missing here"),
  ],
)
def test_different_model_is_an_error(directory, lines, change, name):
  save_all(directory, [0.1])
  with CheckpointStore(directory, warn=lines.append) as store:
    with pytest.raises(UserError, match=re.escape(name)) as caught:
      store.restore(change(make_state()))
    assert '\n' not in str(caught.value)
    assert store.steps() == [1]
  assert lines == []


def test_nothing_is_kept_is_an_error(directory):
  with pytest.raises(UserError, match='keep must be at least 1'):
    CheckpointStore(directory, keep=0)


def test_directory_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with CheckpointStore(tmp_path / 'file' / 'checkpoints') as store:
    with pytest.raises(UserError, match=r'file/checkpoints: Not a dir') as e:
      store.save(1, make_state())
    assert '\n' not in str(e.value)


def test_corrupt_checkpoint_that_cannot_be_moved(directory, lines):
  save_all(directory, [0.1, 0.2])
  truncate(directory / '2')
  (directory.parent / 'checkpoints_corrupt').touch()
  with CheckpointStore(directory, warn=lines.append) as store:
    assert store.restore(make_state())[0] == 1
  assert lines[0].endswith('left there: File exists')


def test_directory_without_permission(directory):
  directory.mkdir(mode=0o500)
  if os.access(directory, os.W_OK):
    pytest.skip('root may write anywhere')
  with CheckpointStore(directory) as store:
    state = make_state()
    with pytest.raises(UserError, match='Permission denied'):
      store.save(1, state)
      store.wait()


def test_full_disk_is_an_error_and_saving_goes_on(directory):
  """A limit on the size of a file fails writes as a full disk does."""
  noise = jax.random.normal(jax.random.key(0), (1 << 16,))
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  with CheckpointStore(directory, keep=1) as store:
    store.save(1, {'w': noise})
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
      store.save(2, {'w': noise})
      with pytest.raises(UserError, match='cannot save a checkpoint') as e:
        store.wait()
      assert '\n' not in str(e.value)
      assert store.restore({'w': noise})[0] == 1
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
      signal.signal(signal.SIGXFSZ, ignored)
    store.save(2, {'w': noise})
    store.wait()
    assert store.steps() == [2]


def test_says_nothing_when_all_is_well(directory, capfd):
  save_all(directory, [0.1, 0.2, 0.3, 0.4])
  with CheckpointStore(pathlib.Path(directory)) as store:
    store.restore(make_state(), 'best')
  assert capfd.readouterr() == ('', '')
