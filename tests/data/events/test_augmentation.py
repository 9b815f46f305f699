"""Augmentation of event frames: invariants and distributions."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.data.events import augmentation
from mlf_jax.errors import UserError
from tests import quick

SHAPE = (4, 9, 8, 2)
# Compiled, once for each amount: operation by operation they would take longer.
rotation, shearing, event_drop, time_shift = (
  quick.jit(function, static_argnums=2)
  for function in (
    augmentation.random_rotation,
    augmentation.random_shear,
    augmentation.drop_events,
    augmentation.random_time_shift,
  )
)
rotate = quick.jit(augmentation.rotate)
shear = quick.jit(augmentation.shear)
AUGMENTATIONS = {
  'rotation': lambda keys, x: rotation(keys, x, 40.0),
  'shear': lambda keys, x: shearing(keys, x, 40.0),
  'event_drop': lambda keys, x: event_drop(keys, x, 0.3),
  'time_shift': lambda keys, x: time_shift(keys, x, 2),
}
every = pytest.mark.parametrize('name', AUGMENTATIONS)


def draw_frames(batch, shape=SHAPE, low=0):
  random = np.random.default_rng(0)
  return jnp.asarray(random.integers(low, 256, (batch, *shape), np.uint8))


def draw_keys(batch, step=0):
  return data.sample_keys(0, step, jnp.arange(batch, dtype=jnp.int32))


@every
def test_a_sample_depends_on_its_own_key_alone(name):
  keys, frames = draw_keys(6), draw_frames(6)
  whole = AUGMENTATIONS[name](keys, frames)
  assert (whole.shape, whole.dtype) == (frames.shape, jnp.uint8)
  assert not np.array_equal(whole, frames)
  order = np.array([4, 1, 5, 1, 1, 0])
  np.testing.assert_array_equal(
    AUGMENTATIONS[name](keys[order], frames[order]), whole[order]
  )
  again = AUGMENTATIONS[name](draw_keys(6, step=1), frames)
  assert not np.array_equal(again, whole)
  assert not np.any(AUGMENTATIONS[name](keys, jnp.zeros_like(frames)))
  for wrong in (frames.astype(jnp.float32), frames[:, 0], frames[:3]):
    with pytest.raises(UserError, match=r'frames|one entry per sample'):
      AUGMENTATIONS[name](keys, wrong)


# --- Rotation ---


@pytest.mark.parametrize('side', [4, 9])
def test_quarter_turns_are_exact(side):
  (frames,) = draw_frames(1, (3, side, side, 2))
  for quarters in (-2, -1, 0, 1, 2):
    np.testing.assert_array_equal(
      rotate(frames, jnp.float32(90 * quarters)),
      np.rot90(frames, quarters, axes=(1, 2)),
    )


def test_a_small_angle_moves_the_rim_by_the_length_of_its_arc():
  """Counterclockwise with row 0 on top; the corners become black."""
  side, angle = 41, 9.0
  frames = np.zeros((1, side, side, 1), np.uint8)
  frames[0, 20, 30:, 0] = 7  # From the centre to the right: 10 to 20 pixels.
  rotated = rotate(jnp.asarray(frames), jnp.float32(angle))
  rows, columns = np.nonzero(np.asarray(rotated)[0, :, :, 0])
  # Each of the ten pixels keeps its distance, within the rounding.
  expected = 20 - (columns - 20) * np.tan(np.deg2rad(angle))
  assert len(rows) >= 8
  np.testing.assert_allclose(rows, expected, atol=0.75)
  full = rotate(jnp.ones((1, side, side, 1), jnp.uint8), jnp.float32(45))
  np.testing.assert_array_equal(full[0, [0, 0, -1, -1], [0, -1, 0, -1], 0], 0)
  # An octagon is left of a square that is turned by 45 degrees.
  assert abs(np.mean(full) - 2 * (2**0.5 - 1)) < 0.02


def test_angle_is_uniform_between_the_bounds():
  """Measured by the place of a few events, on a circle of 30 pixels."""
  frames = jnp.zeros((400, 1, 61, 61, 1), jnp.uint8)
  frames = frames.at[:, :, 28:33, 58:].set(1)
  rotated = rotation(draw_keys(400), frames, 40.0)
  seen = np.asarray(rotated)[:, 0, :, :, 0]
  axis = np.arange(61) - 30
  mass = seen.sum((1, 2))
  row = (seen * axis[:, None]).sum((1, 2)) / mass
  column = (seen * axis).sum((1, 2)) / mass
  angles = np.rad2deg(np.arctan2(-row, column))
  assert -41 < angles.min() < -37 and 37 < angles.max() < 41
  # A uniform distribution, mean and standard deviation of 400 draws.
  assert abs(angles.mean()) < 5
  assert abs(angles.std() - 80 / 12**0.5) < 3


def test_all_timesteps_and_channels_turn_alike():
  plane = draw_frames(5, (1, 9, 8, 1))
  frames = jnp.broadcast_to(plane, (5, *SHAPE))
  rotated = np.asarray(rotation(draw_keys(5), frames, 90.0))
  np.testing.assert_array_equal(
    rotated, np.broadcast_to(rotated[:, :1, :, :, :1], rotated.shape)
  )


# --- Shear ---


@pytest.mark.parametrize('lean', [-1, 0, 1])
def test_shear_shifts_each_row(lean):
  """At 45 degrees by as many pixels as the row is above the middle."""
  (frames,) = draw_frames(1, (2, 5, 7, 2))
  sheared = shear(frames, jnp.float32(45 * lean))
  for i, shift in enumerate(lean * np.array([2, 1, 0, -1, -2])):
    expected = np.roll(frames[:, i], shift, axis=1)
    expected[:, shift:] = 0 if shift < 0 else expected[:, shift:]
    expected[:, : max(shift, 0)] = 0
    np.testing.assert_array_equal(sheared[:, i], expected)


def test_lean_is_uniform_between_the_bounds():
  # One event, 20 rows above the middle.
  frames = jnp.zeros((400, 1, 41, 81, 1), jnp.uint8).at[:, :, 0, 40].set(1)
  sheared = shearing(draw_keys(400), frames, 40.0)
  places = np.argmax(sheared[:, 0, 0, :, 0], axis=1)
  angles = np.rad2deg(np.arctan((places - 40) / 20))
  assert -42 < angles.min() < -37 and 37 < angles.max() < 42
  assert abs(angles.mean()) < 5
  assert abs(angles.std() - 80 / 12**0.5) < 3


# --- Dropped events ---


@pytest.mark.parametrize('probability', [0.1, 0.9])
def test_thinned_counts_have_the_binomial_distribution(probability):
  size = 40_000
  keep = 1 - probability
  for count in (1, 3, 255):
    frames = jnp.full((2, 1, size // 2, 1, 1), count, jnp.uint8)
    left = np.asarray(event_drop(draw_keys(2), frames, probability))
    assert left.max() <= count
    variance = count * keep * probability
    # Four standard deviations of the mean; those of the variance are 1.4 %
    # at most.
    assert abs(left.mean() - count * keep) < 4 * (variance / size) ** 0.5
    assert abs(left.var() / variance - 1) < 0.06
    if count == 3:
      frequencies = np.bincount(left.ravel(), minlength=4) / left.size
      binomial = [
        math.comb(3, k) * keep**k * probability ** (3 - k) for k in range(4)
      ]
      # Standard deviations at most 0.0025.
      np.testing.assert_allclose(frequencies, binomial, atol=0.01)
  assert not np.any(event_drop(draw_keys(2), frames, 1.0))


def test_pixels_and_timesteps_are_thinned_independently():
  frames = jnp.full((1, 2, 60, 60, 2), 1, jnp.uint8)
  (left,) = np.asarray(event_drop(draw_keys(1), frames, 0.5))
  planes = [left[0, :, :, 0], left[1, :, :, 0], left[0, :, :, 1]]
  planes += [planes[0].T, np.roll(planes[0], 1, 0)]
  # The correlation of 3600 independent pairs has standard deviation 0.017.
  correlation = np.corrcoef([plane.ravel() for plane in planes])
  assert np.abs(correlation - np.eye(5)).max() < 0.08


# --- Time shift ---


def test_time_shift_keeps_the_frames_in_their_order():
  max_shift, time = 2, 5
  frames = draw_frames(300, (time, 3, 3, 1), low=1)
  shifted = np.asarray(time_shift(draw_keys(300), frames, max_shift))
  counts = {}
  for sample, original in zip(shifted, np.asarray(frames), strict=True):
    padded = np.pad(original, [(max_shift, max_shift), *[(0, 0)] * 3])
    (shift,) = [
      s
      for s in range(-max_shift, max_shift + 1)
      if np.array_equal(sample, padded[max_shift - s : max_shift - s + time])
    ]
    counts[shift] = counts.get(shift, 0) + 1
  assert set(counts) == {-2, -1, 0, 1, 2}
  # Binomial with mean 60 and standard deviation 6.9.
  assert max(counts.values()) < 95
