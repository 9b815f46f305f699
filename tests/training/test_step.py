"""The training step: parallelism, skipped steps, and what the options do."""

import dataclasses
import functools
import json
import types

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from mlf_jax import data
from mlf_jax.training import augmentation, parallel
from mlf_jax.training import run as run_lib
from mlf_jax.training import state as state_lib
from tests import quick
from tests.training import tiny

SHAPE = (8, 8, 3)
EVENT_AUGMENTATION = {
  'data_name': 'moving_digits',
  'augment__translation': 1,
  'augment__rotation': 20.0,
  'augment__cutout': 2,
  'augment__event_drop': 0.2,
  'augment__time_shift': 1,
  'augment__mixup': 0.5,
}


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  yield from quick.of_the_library()


def build(config, axis_name=None, shape=SHAPE):
  dataset = tiny.dataset(shape)
  schedule = run_lib.Schedule(config, dataset)
  steps = run_lib.make_steps(config, dataset, schedule, axis_name)
  # The rest of the state is that of a run.
  alone = steps.model.clone(axis_name=None)
  drawn = types.SimpleNamespace(init=lambda key, x: quick.variables(alone, x))
  state = state_lib.init_state(
    drawn,
    steps.optimizer,
    config.seed,
    shape,
    ema=config.ema_decay > 0,
  )
  return dataset, steps, state


@functools.cache
def _compiled(fields):
  """By the fields of a configuration, which cannot be hashed itself."""
  dataset, steps, state = build(ml_collections.ConfigDict(json.loads(fields)))
  return dataset, state, quick.jit(steps.train)


def compiled(config):
  """Data, first state and training step; those of most tests are the same."""
  return _compiled(config.to_json())


def run(config, count):
  """States and metrics after 0, 1, ... `count` steps."""
  dataset, state, train = compiled(config)
  states, lines = [state], []
  for i in range(count):
    batch = data.train_batch(dataset, config.batch_size, config.seed, i)
    state, metrics = train(state, batch)
    states.append(state)
    lines.append(metrics)
  return states, lines


# For what the neurons do not matter to.
PLAIN = {'model__time_steps': 1, 'model__thresholds': (0.6,)}


def gradient_config(**changes):
  """The update is the gradient: plain SGD with learning rate 1."""
  return tiny.config(
    batch_size=16,
    optimizer__learning_rate=1.0,
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    schedule__name='constant',
    **changes,
  )


@pytest.mark.parametrize('loops', [False, True])
def test_devices_and_pmap_give_the_numbers_of_one(x64, loops):
  """Loss, gradients and batch statistics, augmentation on, in float64."""
  config = gradient_config(
    model__dtype='float64', augment__flip=True, model__normalize_input=True
  )
  if loops:
    config.model.depth, config.model.scan_blocks = 14, True
  dataset, steps, state = build(config, parallel.AXIS)
  batch = data.train_batch(dataset, 16, 0, 0)
  alone = dataclasses.replace(steps, model=steps.model.clone(axis_name=None))
  expected = quick.jit(alone.train)(state, batch)
  evaluated = quick.jit(alone.evaluate)(
    expected[0].eval_variables, next(data.eval_batches(dataset, 16))
  )
  # Loops make no difference to how a batch is divided.
  for kind in ('shard_map',) if loops else ('shard_map', 'pmap'):
    across = parallel.DataParallel(kind)
    assert across.num_devices == 8
    replicated = jax.device_put(state, across.replicated)
    placed = across.put(batch)
    got = across.map(steps.train)(replicated, placed)
    chex.assert_trees_all_close(got, expected, rtol=1e-10, atol=1e-10)
    placed = across.put(next(data.eval_batches(dataset, 16)))
    sums = across.map(steps.evaluate)(got[0].eval_variables, placed)
    chex.assert_trees_all_close(sums, evaluated, rtol=1e-10)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), expected[0].params, state.params
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_recordings_are_augmented_and_mixed_alike_in_parts(x64):
  """As devices take parts: the partner of a sample may be on another one."""
  config = gradient_config(model__dtype='float64', **EVENT_AUGMENTATION)
  dataset, steps, _ = build(config, shape=(2, *SHAPE))
  batch = data.train_batch(dataset, 16, 0, 0, with_partners=True)
  samples = quick.jit(
    lambda batch: augmentation.train_samples(
      config, steps.normalize, jnp.int32(3), batch
    )
  )
  whole = samples(batch)
  parts = [
    samples({name: value[i : i + 2] for name, value in batch.items()})
    for i in range(0, 16, 2)
  ]
  together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
  chex.assert_trees_all_close(together, whole, rtol=1e-10, atol=1e-10)
  # Every part of the batch takes part, those of the partners too.
  for name, value in batch.items():
    other = samples({**batch, name: np.roll(value, 1, axis=0)})
    leaves = zip(jax.tree.leaves(whole), jax.tree.leaves(other), strict=True)
    assert any((a != b).any() for a, b in leaves), name


def test_augmentation_is_of_the_raw_image_and_new_in_each_step():
  config = gradient_config(augment__flip=True, augment__crop_padding=2, **PLAIN)
  dataset, steps, state = build(config)
  seen = []

  def record(images):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), images)
    return images.astype(jnp.float32) / 255

  train = quick.jit(dataclasses.replace(steps, normalize=record).train)
  batch = data.train_batch(dataset, 16, 0, 0)
  for step in (0, 1):
    state, _ = train(state, batch)
    jax.effects_barrier()
    keys = data.sample_keys(config.seed, step, batch['position'])
    flipped = data.random_flip(keys, batch['image'])
    expected = data.random_crop(keys, flipped, 2)
    np.testing.assert_array_equal(seen[step], expected)
  assert np.any(seen[0] != seen[1])


def test_weight_decay_is_on_every_parameter():
  states = []
  for weight_decay in (0.0, 0.1):
    config = gradient_config(**PLAIN)
    config.optimizer.weight_decay = weight_decay
    states.append(run(config, 1)[0])
  (start, plain), (_, decayed) = states
  start = start.replace(params=jax.tree.map(lambda p: 0.1 * p, start.params))
  chex.assert_trees_all_close(
    jax.tree.map(jnp.subtract, plain.params, decayed.params),
    start.params,
    atol=1e-5,
  )


def test_a_whole_step_on_all_zero_frames_stays_finite():
  config = gradient_config(model__normalize_input=True)
  _, steps, state = build(config, shape=(2, *SHAPE))
  steps = dataclasses.replace(steps, normalize=lambda x: x.astype(jnp.float32))
  batch = {
    'image': np.zeros((16, 2, *SHAPE), np.uint8),
    'label': np.arange(16, dtype=np.int32) % 4,
    'position': np.arange(16, dtype=np.int32),
  }
  new, _ = quick.jit(steps.train)(state, batch)
  assert new.skipped_steps == 0
  for leaf in jax.tree.leaves(new):
    assert np.all(np.isfinite(leaf))


def test_a_step_that_is_not_finite_is_skipped_and_counted():
  config = tiny.config(
    batch_size=16,
    max_skipped_steps=3,
    ema_decay=0.9,
    **PLAIN,
    log_every=1000,
    eval_every_epochs=99.0,
  )
  dataset, steps, state = build(config)
  good = data.train_batch(dataset, 16, 0, 0)
  bad = {**good, 'image': np.full_like(good['image'], 255)}
  normalize = steps.normalize
  steps = dataclasses.replace(
    steps,
    normalize=lambda x: jnp.where(x == 255, jnp.nan, 1.0) * normalize(x),
  )
  train = quick.jit(steps.train)

  def kept(state):
    return (
      state.params,
      state.batch_stats,
      state.opt_state,
      state.ema_params,
      state.loss_sum,
    )

  state, _ = train(state, good)
  for count in (1, 2):
    new, metrics = train(state, bad)
    chex.assert_trees_all_equal(kept(new), kept(state))
    assert metrics['train/skipped_steps'] == metrics['skipped_in_row'] == count
    assert np.isfinite(metrics['train/loss'])
    assert new.step == count + 1
    state = new
  state, metrics = train(state, good)
  assert metrics['skipped_in_row'] == 0
  assert metrics['train/skipped_steps'] == 2
  # After the limit nothing changes any more, so that the host may be late.
  for _ in range(3):
    state, _ = train(state, bad)
  stopped, metrics = train(state, good)
  chex.assert_trees_all_equal(kept(stopped), kept(state))
  assert metrics['skipped_in_row'] == 4


def test_ema_is_the_average_of_the_weights():
  states, _ = run(tiny.config(batch_size=16, ema_decay=0.9, **PLAIN), 2)
  expected = jax.tree.map(
    lambda a, b, c: 0.9 * (0.9 * a + 0.1 * b) + 0.1 * c,
    *(s.params for s in states),
  )
  chex.assert_trees_all_close(states[2].ema_params, expected, rtol=1e-4)
  chex.assert_trees_all_equal(
    states[2].eval_variables['params'], states[2].ema_params
  )


def test_clipping_bounds_the_global_norm():
  (before, after), _ = run(
    gradient_config(optimizer__clip_norm=0.01, **PLAIN), 1
  )
  update = jax.tree.map(jnp.subtract, after.params, before.params)
  np.testing.assert_allclose(optax.tree.norm(update), 0.01, rtol=1e-4)


def test_accumulation_averages_the_gradients_of_two_batches():
  config = gradient_config(optimizer__accumulate_steps=2, **PLAIN)
  (zero, one, two), _ = run(config, 2)
  chex.assert_trees_all_equal(zero.params, one.params)
  # The parameters have not moved: the gradients are those of single steps.
  dataset, state, train = compiled(gradient_config(**PLAIN))
  moves = []
  for i in (0, 1):
    batch = data.train_batch(dataset, 16, 0, i)
    new, _ = train(
      state.replace(step=state.step + i, batch_stats=zero.batch_stats), batch
    )
    moves.append(jax.tree.map(jnp.subtract, new.params, state.params))
  expected = jax.tree.map(lambda p, a, b: p + (a + b) / 2, zero.params, *moves)
  chex.assert_trees_all_close(two.params, expected, rtol=1e-4, atol=1e-6)


def test_loss_is_linear_in_label_smoothing():
  losses, accuracies = [], []
  for smoothing in (0.0, 0.1, 0.2):
    _, (line,) = run(gradient_config(label_smoothing=smoothing, **PLAIN), 1)
    losses.append(line['train/loss'])
    accuracies.append(line['train/accuracy'])
  # Cross-entropy with the classes mixed with the uniform distribution.
  np.testing.assert_allclose(
    losses[2] - losses[0], 2 * (losses[1] - losses[0]), rtol=1e-3
  )
  assert losses[1] != losses[0]
  # Smoothing changes the loss, not what is predicted.
  assert len({float(a) for a in accuracies}) == 1


def test_metrics_are_means_over_the_line():
  (_, lines), (_, single) = (
    run(
      tiny.config(
        batch_size=16, log_every=every, eval_every_epochs=100.0, **PLAIN
      ),
      4,
    )
    for every in (2, 1)
  )
  for name in ('train/loss', 'train/accuracy'):
    for first in (0, 2):
      np.testing.assert_allclose(
        lines[first + 1][name],
        (single[first][name] + single[first + 1][name]) / 2,
        rtol=1e-5,
      )
