"""Moving digits: real images, simulated events."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest

from mlf_jax import data
from mlf_jax.data.events import moving_digits
from mlf_jax.data.images import digits


@pytest.fixture(scope='module')
def test_recordings():
  return moving_digits.recordings('test')


@pytest.fixture(scope='module')
def images():
  return digits.published_images()[0]


def columns(events):
  return [events.t, events.x, events.y, events.p]


def test_events_are_the_same_on_every_processor(test_recordings):
  # 359 recordings, so that some would change with a last bit.
  digest = hashlib.sha256()
  for events in test_recordings[0]:
    for name, dtype in (('t', '<i8'), ('x', '<u2'), ('y', '<u2'), ('p', 'u1')):
      digest.update(getattr(events, name).astype(dtype).tobytes())
  assert digest.hexdigest() == (
    '1854738c1f4e8143f1ef24b35d6974096506e70b6095f1e0d3e5a329d7aef4d3'
  )


def test_a_recording_depends_on_its_digit_alone(test_recordings, images):
  _, numbers = digits.split_members(digits.published_images()[1])
  # Neither on the others that are recorded with it, nor on their order.
  some = [200, 0, 358]
  again = moving_digits.record(images[numbers[some]], numbers[some])
  for i, events in zip(some, again, strict=True):
    for a, b in zip(
      columns(events), columns(test_recordings[0][i]), strict=True
    ):
      np.testing.assert_array_equal(a, b)
  # Each has its own noise: the same image gives other events.
  twins = moving_digits.record(images[[0, 0]], np.array([0, 1]))
  assert len(twins[0]) != len(twins[1]) or np.any(twins[0].t != twins[1].t)


def test_the_path_is_a_triangle_of_three_straight_saccades(images, monkeypatch):
  quiet = dataclasses.replace(moving_digits.CAMERA, noise_hz=0.0)
  monkeypatch.setattr(moving_digits, 'CAMERA', quiet)
  # One bright dot, whose events show its place.
  dot = np.zeros((1, 8, 8), np.uint8)
  dot[0, 3, 4] = 16
  (events,) = moving_digits.record(dot, np.array([0]))
  start = 7.5 + 1.5 * np.array([3 - 3.5, 4 - 3.5])
  corners = start + np.array([(-2, -2), (2, 0), (-2, 2), (-2, -2)])
  for i, (a, b) in enumerate(itertools.pairwise(corners)):
    # At mid-saccade it is half-way; pixels ahead of it become brighter.
    part = events.between(33_000 * i + 14_500, 33_000 * i + 18_500)
    place = np.stack([part.y, part.x], -1).astype(float)
    np.testing.assert_allclose(place.mean(0), (a + b) / 2, atol=0.5)
    ahead = place[part.p == 1].mean(0) - place[part.p == 0].mean(0)
    direction = (b - a) / np.linalg.norm(b - a)
    assert ahead @ direction > 0.9 * np.linalg.norm(ahead) > 0.5


def test_a_digit_is_upscaled_bilinearly(images):
  images = images[:2].astype(float)
  still = moving_digits._film(images, np.zeros((1, 2)))
  assert still.shape == (1, 2, 16, 16)
  # The middle of the sensor, 7.5, is the middle of the digit, 3.5. Pixel 7 is
  # half a sensor pixel before it, which is a third of a digit pixel.
  row = images[:, 3] * (5 / 6) + images[:, 4] / 6
  seen = row[:, 3] * (5 / 6) + row[:, 4] / 6
  np.testing.assert_allclose(still[0, :, 7, 7], 0.2 + 0.8 * seen / 16, 1e-5)
  # An offset of a sensor pixel moves the digit by one pixel.
  moved = moving_digits._film(images, np.array([[1.0, -2.0]]))
  np.testing.assert_allclose(moved[..., 1:, :-2], still[..., :-1, 2:], 1e-5)


def test_frames_are_those_of_the_recordings(test_recordings):
  spec = moving_digits.FRAMES
  dataset = moving_digits.load(spec)
  assert dataset.test.images.shape == (359, 10, 8, 8, 2)
  assert dataset.sample_shape == data.DATASETS['moving_digits'].shape()
  assert dataset.test.images.dtype == np.uint8
  for i in (0, 100, 358):
    frames = spec.frames(test_recordings[0][i])
    np.testing.assert_array_equal(dataset.test.images[i], frames)
  # The same digits are in the same splits as for the images.
  images = digits.load()
  assert dataset.split_name == images.split_name
  for name in ('train', 'test'):
    of_events, of_images = getattr(dataset, name), getattr(images, name)
    np.testing.assert_array_equal(of_events.labels, of_images.labels)
  assert dataset.test.labels.dtype == np.int32
  np.testing.assert_array_equal(dataset.test.labels, test_recordings[1])
  # Counts stay as they are.
  assert (dataset.scale, dataset.mean, dataset.std) == (1, (0, 0), (1, 1))
  # No window is empty: together they are as long as a recording.
  assert dataset.test.images.sum((2, 3, 4)).min() > 0
