"""What the training step makes of a batch of frames, before the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax import data, objectives
from mlf_jax.training import augmentation
from tests.training import tiny

SHAPE = (3, 8, 8, 2)
ALL_BUT_MIX_UP = {
  'augment__flip': True,
  'augment__translation': 2,
  'augment__rotation': 50.0,
  'augment__cutout': 3,
  'augment__event_drop': 0.25,
  'augment__time_shift': 1,
  'model__time_steps': 3,
}


def draw(config, step=4):
  """A batch, and the samples of a training step that are made of it."""
  dataset = tiny.dataset(SHAPE, n=16, num_classes=10)
  batch = data.train_batch(
    dataset, 16, 0, 0, with_partners=augmentation.mixes(config)
  )

  @jax.jit
  def samples(batch):
    return augmentation.train_samples(
      config, lambda x: x.astype(jnp.float32) - 5, jnp.int32(step), batch
    )

  return batch, samples(batch)


@functools.cache
def draw_all_but_mix_up():
  return draw(tiny.config('moving_digits', **ALL_BUT_MIX_UP))


def test_augmentations_follow_one_another_on_raw_counts():
  batch, samples = draw_all_but_mix_up()

  @jax.jit
  def one_after_another(position, frames):
    keys = data.sample_keys(0, 4, position)
    frames = data.random_flip(keys, frames)
    frames = data.random_crop(keys, frames, 2)
    frames = data.random_rotation(keys, frames, 50.0)
    frames = data.random_cutout(keys, frames, 3)
    frames = data.drop_events(keys, frames, 0.25)
    return data.random_time_shift(keys, frames, 1)

  frames = one_after_another(batch['position'], batch['image'])
  np.testing.assert_array_equal(samples.inputs, frames.astype(jnp.float32) - 5)
  np.testing.assert_array_equal(samples.label, batch['label'])
  assert samples.share is None


def test_what_is_off_leaves_the_batch_alone():
  batch, samples = draw(tiny.config('moving_digits'))
  np.testing.assert_array_equal(
    samples.inputs, batch['image'].astype(np.float32) - 5
  )


def test_both_samples_of_a_mixture_are_what_they_are_alone():
  _, alone = draw_all_but_mix_up()
  batch, mixed = draw(
    tiny.config('moving_digits', **ALL_BUT_MIX_UP, augment__mixup=0.7)
  )
  keys = data.sample_keys(0, 4, batch['position'])
  np.testing.assert_allclose(mixed.share, data.mix_shares(keys, 0.7), rtol=1e-6)
  partners = batch['partner_position']
  np.testing.assert_allclose(
    mixed.inputs,
    data.mix_up(mixed.share, alone.inputs, alone.inputs[partners]),
    rtol=1e-5,
    atol=1e-5,
  )
  np.testing.assert_array_equal(mixed.label, alone.label)
  np.testing.assert_array_equal(mixed.partner_label, alone.label[partners])


def test_loss_of_a_mixture_is_the_mixture_of_the_losses():
  """Cross-entropy with the two classes weighted with their shares."""
  random = np.random.default_rng(0)
  logits = jnp.asarray(random.normal(size=(4, 3)), jnp.float32)
  samples = augmentation.Samples(
    inputs=jnp.zeros((4, 1)),
    label=jnp.array([0, 1, 2, 1]),
    partner_label=jnp.array([2, 2, 0, 1]),
    share=jnp.array([1.0, 0.0, 0.3, 0.6]),
  )
  losses, _ = samples.judge(logits, 0.0)
  targets = np.array([[1, 0, 0], [0, 0, 1], [0.7, 0, 0.3], [0, 1, 0]])
  expected = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  smoothed, _ = samples.judge(logits, 0.3)
  uniform = -np.asarray(jax.nn.log_softmax(logits)).mean(1)
  np.testing.assert_allclose(smoothed, 0.7 * losses + 0.3 * uniform, rtol=1e-5)


def test_correct_is_the_class_with_the_larger_share():
  samples = augmentation.Samples(
    inputs=jnp.zeros((5, 1)),
    label=jnp.array([0, 0, 0, 0, 0]),
    partner_label=jnp.array([1, 1, 1, 1, 0]),
    share=jnp.array([0.6, 0.6, 0.4, 0.4, 0.1]),
  )
  logits = 9.0 * jax.nn.one_hot(jnp.array([0, 1, 0, 1, 0]), 3)
  _, correct = samples.judge(logits, 0.0)
  assert correct.tolist() == [True, False, False, True, True]


def test_without_a_mixture_the_loss_is_the_cross_entropy():
  logits = jnp.array([[0.0, 1.0], [3.0, 1.0]])
  label = jnp.array([0, 0])
  losses, correct = augmentation.Samples(logits, label).judge(logits, 0.1)
  np.testing.assert_array_equal(
    losses, objectives.cross_entropy(logits, label, 0.1)
  )
  assert correct.tolist() == [False, True]
