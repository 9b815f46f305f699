"""Moving digits: real images, simulated events."""

import dataclasses
import itertools

import numpy as np
import pytest
from mlf_jax.data.frames import FrameSpec

from mlf_jax.data import digits, moving_digits

SPEC = FrameSpec(10, 'window', 10_000, 2.0)


@pytest.fixture(scope='module')
def test_recordings():
  return moving_digits.recordings('test')


@pytest.fixture(scope='module')
def images():
  return digits.published()[0]


def columns(events):
  return [events.t, events.x, events.y, events.p]


def test_members_are_those_of_digits(test_recordings):
  events, labels = test_recordings
  np.testing.assert_array_equal(labels, digits.load('test').labels)
  assert len(events) == len(labels) == 359 and labels.dtype == np.int32


def test_a_recording_depends_on_its_digit_alone(test_recordings, images):
  numbers = digits.members('test', digits.published()[1])
  # Not on which are recorded with it, nor on their order.
  some = [200, 0, 358]
  again = moving_digits.record(images[numbers[some]], numbers[some])
  for i, events in zip(some, again, strict=True):
    for a, b in zip(
      columns(events), columns(test_recordings[0][i]), strict=True
    ):
      np.testing.assert_array_equal(a, b)
  # The noise is its own: of the same image other events.
  twins = moving_digits.record(images[[0, 0]], np.array([0, 1]))
  assert len(twins[0]) != len(twins[1]) or np.any(twins[0].t != twins[1].t)


def test_recordings_are_sorted_within_the_sensor_and_of_both_polarities(
  test_recordings,
):
  for events in test_recordings[0]:
    assert events.sensor_size == (16, 16)
    assert max(events.x.max(), events.y.max()) <= 15
    assert events.t[0] >= 0 and events.t[-1] <= 99_000
    assert np.all(np.diff(events.t) >= 0)
    # Every pixel sees at the end what it saw at first, so that what became
    # brighter became darker again.
    assert 0.4 < events.p.mean() < 0.6
    assert 500 < len(events) < 4000


def test_the_path_is_a_triangle_of_three_straight_saccades(images, monkeypatch):
  quiet = dataclasses.replace(moving_digits.CAMERA, noise_hz=0.0)
  monkeypatch.setattr(moving_digits, 'CAMERA', quiet)
  # One bright dot, whose events are where it is.
  dot = np.zeros((1, 8, 8), np.uint8)
  dot[0, 3, 4] = 16
  (events,) = moving_digits.record(dot, np.array([0]))
  start = 7.5 + 1.5 * np.array([3 - 3.5, 4 - 3.5])
  corners = start + np.array([(-2, -2), (2, 0), (-2, 2), (-2, -2)])
  for i, (a, b) in enumerate(itertools.pairwise(corners)):
    # At mid-saccade it is half-way, what is ahead of it becomes brighter.
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
  # The middle of the sensor, 7.5, is that of the digit, 3.5: the camera's pixel
  # 7 is half a pixel less, a third of one of the digit's.
  row = images[:, 3] * (5 / 6) + images[:, 4] / 6
  seen = row[:, 3] * (5 / 6) + row[:, 4] / 6
  np.testing.assert_allclose(still[0, :, 7, 7], 0.2 + 0.8 * seen / 16, 1e-5)
  # A pixel of the sensor further, and the digit has moved by one.
  moved = moving_digits._film(images, np.array([[1.0, -2.0]]))
  np.testing.assert_allclose(moved[..., 1:, :-2], still[..., :-1, 2:], 1e-5)


def test_frames_are_those_of_the_recordings(test_recordings):
  dataset = moving_digits.load('test', SPEC)
  assert dataset.images.shape == (359, 10, 8, 8, 2)
  assert dataset.images.dtype == np.uint8
  for i in (0, 100, 358):
    frames = SPEC.frames(test_recordings[0][i])
    np.testing.assert_array_equal(dataset.images[i], frames)
  np.testing.assert_array_equal(dataset.labels, test_recordings[1])
  assert (dataset.name, dataset.split) == ('moving_digits', 'test')
  assert dataset.split_name == digits.load('test').split_name
  assert (dataset.scale, dataset.num_classes) == (1, 10)
  # Counts as they are.
  assert (dataset.mean, dataset.std) == ((0, 0), (1, 1))
  # All windows hold something: they are as long together as a recording.
  assert dataset.images.sum((2, 3, 4)).min() > 0


def test_train_and_test_are_disjoint_and_stratified():
  labels = digits.published()[1]
  train, test = (digits.members(split, labels) for split in ('train', 'test'))
  np.testing.assert_array_equal(
    np.sort(np.concatenate([train, test])), np.arange(1797)
  )
  share = np.bincount(labels[test]) / np.bincount(labels)
  np.testing.assert_allclose(share, 0.2, atol=0.003)
