"""The training step against the gradient by hand, on one device and eight."""

import functools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlf_jax import data
from mlf_jax.training import sharding
from mlf_jax.training import step as step_lib
from mlf_jax.training.losses import LOSSES, Loss
from tests import quick
from tests.training import tiny

SHAPE = (8, 8, 3)
# For tests in which the neurons do not matter.
PLAIN = {'model__time_steps': 1, 'unit__thresholds': (0.6,)}


pytestmark = pytest.mark.usefixtures('quick_compilation')


def gradient_config(**changes):
  """The update is the gradient: plain SGD with learning rate 1."""
  return tiny.config(
    **{
      'batch_size': 16,
      'optimizer__learning_rate': 1.0,
      'optimizer__momentum': 0.0,
      'optimizer__weight_decay': 0.0,
      'augment__crop_padding': 0,
      'schedule__name': 'constant',
      **changes,
    }
  )


def train_batch(built, step=0):
  return data.train_batch(built.dataset.train, 16, 0, step)


def of_every_timestep(logits, labels):
  """Cross-entropy of the logits at each timestep, in the mean."""
  return optax.softmax_cross_entropy(logits, labels[None]).mean(0)


@pytest.fixture(scope='module')
def by_hand(quick_compilation):
  """Loss of a batch, smoothed by 0.2, and its gradient, for both losses."""
  built = tiny.built(gradient_config(), SHAPE)
  batch = train_batch(built)
  images = (batch['image'] / 255 - 0.5) / 0.25
  targets = 0.8 * jax.nn.one_hot(batch['label'], 4) + 0.2 / 4

  def loss(params, every_timestep):
    logits, stats = built.model.apply(
      {'params': params, 'batch_stats': built.state.batch_stats},
      images.astype(np.float32),
      train=True,
      every_timestep=True,
      mutable=['batch_stats'],
    )
    mean = logits.mean(0)
    each = jnp.where(every_timestep, logits, mean[None])
    value = -(targets[None] * jax.nn.log_softmax(each)).sum(-1).mean()
    correct = (mean.argmax(-1) == batch['label']).mean()
    return value, (correct, stats['batch_stats'])

  return batch, quick.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize('name', ['cross_entropy', 'of_every_timestep'])
def test_step_by_hand(by_hand, name, monkeypatch):
  """Smoothed labels, weight decay on every parameter, batch statistics."""
  batch, loss_and_gradient = by_hand
  loss = Loss(of_every_timestep, every_timestep=True)
  monkeypatch.setitem(LOSSES, 'of_every_timestep', loss)
  config = gradient_config(
    loss=name, label_smoothing=0.2, optimizer__weight_decay=0.1
  )
  built = tiny.built(config, SHAPE)
  after, metrics = quick.jit(built.train_step)(built.state, batch)
  (value, (correct, stats)), gradient = loss_and_gradient(
    built.state.params, name == 'of_every_timestep'
  )
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'], correct)
  chex.assert_trees_all_close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)
  expected = jax.tree.map(
    lambda p, g: p - (g + 0.1 * p), built.state.params, gradient
  )
  chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-5)
  assert min(jnp.abs(g).max() for g in jax.tree.leaves(gradient)) > 0


def test_the_seed_of_the_batch_stands_for_that_of_the_configuration():
  """All that is drawn: moved images, mixed ones, and how many timesteps."""

  def after(config_seed, **batch_seed):
    config = gradient_config(
      seed=config_seed,
      random_time_steps=True,
      augment__crop_padding=1,
      augment__mixup=0.5,
    )
    built = tiny.built(config, SHAPE)
    batch = data.train_batch(built.dataset.train, 16, 0, 0, True) | batch_seed
    state = tiny.built(gradient_config(), SHAPE).state
    return quick.jit(built.train_step)(state, batch)[0].params

  seed = np.full(16, 7, np.uint32)
  seventh = after(7)
  chex.assert_trees_all_equal(seventh, after(0, seed=seed))
  leaves = map(jax.tree.leaves, (after(0), seventh))
  assert any((a != b).any() for a, b in zip(*leaves, strict=True))


def test_the_first_timesteps_decide_at_random():
  """The loss of a sample is that of 1, 2 or 3 timesteps, each at some step."""
  config = gradient_config(
    batch_size=1, model__time_steps=3, random_time_steps=True
  )
  built = tiny.built(config, SHAPE)
  batch = data.train_batch(built.dataset.train, 1, 0, 0)

  def of_first(state):
    logits, _ = built.model.apply(
      state.eval_variables,
      built.dataset.normalize(batch['image'], jnp.float32),
      train=True,
      every_timestep=True,
      mutable=['batch_stats'],
    )
    running = jnp.cumsum(logits[:, 0], 0) / jnp.arange(1.0, 4.0)[:, None]
    return -jax.nn.log_softmax(running)[:, batch['label'][0]]

  losses = np.asarray(quick.jit(of_first)(built.state))
  step, chosen = quick.jit(built.train_step), []
  for number in range(24):
    _, metrics = step(built.state.replace(step=jnp.int32(number)), batch)
    distance = np.abs(losses - metrics['loss'])
    chosen.append(int(distance.argmin()))
    assert distance.min() < 1e-5
  assert {*chosen} == {0, 1, 2} and min(np.diff(np.sort(losses))) > 1e-3


def test_weights_multiply_the_loss_of_their_samples():
  """The update is linear in them; without weights it is that of ones."""
  config = tiny.small(
    batch_size=16,
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    schedule__name='constant',
  )
  built = tiny.built(config, SHAPE)
  step, batch = jax.jit(built.train_step), train_batch(built)

  def update(**weight):
    state, metrics = step(built.state, {**batch, **weight})
    new = {'loss': metrics['loss'], 'params': state.params}
    old = {'loss': 0.0, 'params': built.state.params}
    return jax.tree.map(jnp.subtract, new, old)

  ones, half = np.ones(16, np.float32), np.arange(16) < 8
  close = functools.partial(chex.assert_trees_all_close, atol=1e-6)
  close(update(), update(weight=ones))
  zero = update(weight=0 * ones)
  close(zero, jax.tree.map(jnp.zeros_like, zero))
  # All but half of the samples once, that half twice.
  once, twice = update(weight=ones), update(weight=ones * half)
  both = update(weight=ones + half)
  close(both, jax.tree.map(jnp.add, once, twice))
  assert abs(twice['loss']) > 0.1


def test_evaluation_of_every_timestep_by_hand():
  """Hard labels, and the samples that fill up a batch left out."""
  loss = Loss(of_every_timestep, every_timestep=True)
  built = tiny.built(gradient_config(), SHAPE)
  batch, mask = train_batch(built), np.arange(16) < 5
  logits = jax.random.normal(jax.random.key(0), (2, 16, 4))
  model = types.SimpleNamespace(
    num_classes=4,
    axis_name=None,
    apply=lambda variables, images, every_timestep: logits,
  )
  sums = step_lib.eval_step(
    {},
    {'image': batch['image'], 'label': batch['label'], 'mask': 1.0 * mask},
    model=model,
    loss=loss,
    normalize=jnp.asarray,
  )
  labels = jax.nn.one_hot(batch['label'], 4)
  losses = -(labels[None] * jax.nn.log_softmax(logits)).sum(-1).mean(0)
  np.testing.assert_allclose(sums['loss'], losses[:5].sum(), rtol=1e-5)
  right = logits.mean(0).argmax(-1) == batch['label']
  assert (sums['correct'], sums['count']) == (right[:5].sum(), 5)


@pytest.mark.parametrize('kind', ['shard_map', 'pmap'])
def test_eight_devices_give_the_numbers_of_one(one_device, kind):
  """Also with blocks in a loop, which differ by rounding in float64."""
  config, alone, batch, expected = one_device
  config.model.scan_blocks = kind == 'shard_map'
  parallel = sharding.DataParallel(kind)
  assert parallel.num_devices == 8
  with jax.enable_x64(True):
    divided = tiny.built(config, SHAPE, sharding.AXIS)
    got = parallel.parallelize(divided.train_step)(
      jax.device_put(alone.state, parallel.replicated),
      parallel.shard_batch(batch),
    )
    chex.assert_trees_all_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope='module')
def one_device():
  """A step with augmentation in float64, of two blocks in the first stage."""
  config = gradient_config(
    model__dtype='float64',
    model__normalize_input=True,
    model__depth=14,
    model__time_steps=1,
    augment__flip=True,
    augment__crop_padding=1,
  )
  with jax.enable_x64(True):
    alone = tiny.built(config, SHAPE)
    batch = train_batch(alone)
    expected = quick.jit(alone.train_step)(alone.state, batch)
    moved = jax.tree.map(
      lambda a, b: np.abs(a - b).max(), expected[0].params, alone.state.params
    )
  assert min(jax.tree.leaves(moved)) > 0
  return config, alone, batch, expected


def test_a_whole_step_on_all_zero_frames_stays_finite():
  config = gradient_config(model__normalize_input=True)
  built = tiny.built(
    config, (2, *SHAPE), normalize=lambda x: x.astype(jnp.float32)
  )
  batch = train_batch(built)
  batch['image'] = np.zeros_like(batch['image'])
  new, _ = quick.jit(built.train_step)(built.state, batch)
  assert new.skipped_steps == 0
  chex.assert_tree_all_finite(new)


# --- One compiled step for augmentation and for what is not finite ---


@pytest.fixture(scope='module')
def recorded(quick_compilation):
  """A step that notes what it normalises; a black pixel becomes NaN."""
  config = tiny.config(
    batch_size=16,
    max_skipped_steps=3,
    ema_decay=0.9,
    augment__flip=True,
    augment__crop_padding=2,
    **PLAIN,
  )
  seen = []

  def normalize(images):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), images)
    return jnp.where(images == 255, jnp.nan, images / 255)

  built = tiny.built(config, SHAPE, normalize=normalize)
  return built.state, train_batch(built), quick.jit(built.train_step), seen


def test_augmentation_is_of_the_raw_image_and_new_in_each_step(recorded):
  state, batch, step, seen = recorded
  seen.clear()
  for number in (0, 1):
    state, _ = step(state, batch)
    jax.effects_barrier()
    keys = data.sample_keys(0, number, batch['position'])
    flipped = data.random_flip(keys, batch['image'])
    expected = data.random_crop(keys, flipped, 2)
    np.testing.assert_array_equal(seen[number], expected)
  assert np.any(seen[0] != seen[1])


def kept(state):
  return state.params, state.batch_stats, state.opt_state, state.ema_params


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(recorded):
  first, good, step, _ = recorded
  bad = {**good, 'image': np.full_like(good['image'], 255)}
  state, metrics = step(first, good)
  assert metrics['skipped_steps'] == metrics['skipped_in_row'] == 0
  # The average of the weights is what is evaluated.
  chex.assert_trees_all_close(
    state.eval_variables['params'],
    jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, first.params, state.params),
    rtol=1e-4,
    atol=1e-6,
  )
  for count in (1, 2):
    new, metrics = step(state, bad)
    chex.assert_trees_all_equal(kept(new), kept(state))
    assert metrics['skipped_steps'] == metrics['skipped_in_row'] == count
    assert new.step == count + 1
    state = new
  state, metrics = step(state, good)
  assert (metrics['skipped_in_row'], metrics['skipped_steps']) == (0, 2)
  # After the limit nothing changes any more, so that the host may be late.
  for _ in range(3):
    state, _ = step(state, bad)
  stopped, metrics = step(state, good)
  chex.assert_trees_all_equal(kept(stopped), kept(state))
  assert metrics['skipped_in_row'] == 4


def test_an_update_that_is_not_finite_is_skipped(recorded):
  state, batch, step, _ = recorded
  # The momentum is infinite, loss and gradient are finite.
  infinite = jax.tree.map(lambda leaf: leaf + jnp.inf, state.params)
  state = state.replace(
    opt_state=optax.tree_utils.tree_set(state.opt_state, trace=infinite)
  )
  new, metrics = step(state, batch)
  assert np.isfinite(metrics['loss']) and metrics['skipped_steps'] == 1
  chex.assert_trees_all_equal(kept(new), kept(state))
