"""Samples from files, for networks on images and on frames."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from mlf_jax import UserError
from mlf_jax.data.events import to_frames
from mlf_jax.data.events.events import from_array
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.interop.sample_files import read_samples
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.training import default_config


def network(kind, **fields):
  """A network of which only the description is there."""
  shape = (4, 6, 3) if kind == 'folder' else (2, 4, 4, 2)
  config = default_config(data=kind)
  config.data.update(fields)
  config.model.time_steps = 2
  return TrainedNetwork(config, None, {}, prepared(shape), 0)


def prepared(shape):
  return Preprocessing(shape, 2, ('a', 'b'), 1.0, (), ())


IMAGES = network('folder')
FRAMES = network(
  'recording_folder',
  binning='window',
  window_ms=1.0,
  downsample=2.0,
  sensor='8x8',
)


def picture(path, size=(4, 6)):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(path)
  return pixels


def test_an_image_is_a_batch_of_one(tmp_path):
  pixels = picture(tmp_path / 'a.PNG')
  np.testing.assert_array_equal(
    read_samples(tmp_path / 'a.PNG', IMAGES), pixels[None]
  )


def test_an_image_of_another_size_is_resized_only_if_training_did(tmp_path):
  picture(tmp_path / 'a.png', (8, 12))
  with pytest.raises(UserError, match=r'8 x 12 pixels .* takes 4 x 6'):
    read_samples(tmp_path / 'a.png', IMAGES)
  resizing = network('folder', size=(4, 6))
  assert read_samples(tmp_path / 'a.png', resizing).shape == (1, 4, 6, 3)


@pytest.mark.parametrize('batch', [(), (5,)])
def test_an_array_is_a_sample_or_a_batch(batch, tmp_path):
  samples = np.arange(np.prod((*batch, 2, 4, 4, 2)), dtype=np.float32)
  samples = samples.reshape(*batch, 2, 4, 4, 2)
  np.save(tmp_path / 'a.npy', samples)
  got = read_samples(tmp_path / 'a.npy', FRAMES)
  np.testing.assert_array_equal(got, samples if batch else samples[None])


def test_a_recording_becomes_the_frames_of_training(tmp_path):
  layout = [('t', 'i8'), ('x', 'i2'), ('y', 'i2'), ('p', 'i1')]
  events = [(0, 0, 1, 0), (400, 7, 6, 1), (1500, 3, 2, 1), (9000, 1, 0, 1)]
  events = np.array(events, layout)
  np.save(tmp_path / 'a.npy', events)
  recording = from_array(events, (8, 8))
  expected = to_frames(recording, 2, window_us=1000, downsample=2.0)
  assert expected.sum() == 3
  np.testing.assert_array_equal(
    read_samples(tmp_path / 'a.npy', FRAMES), expected[None]
  )


@pytest.mark.parametrize(
  ('name', 'content', 'net', 'message'),
  [
    ('no.png', None, IMAGES, 'is no file'),
    ('a.txt', b'', IMAGES, 'is of no known kind: .*png'),
    ('a.png', b'nothing', IMAGES, 'a.png'),
    ('a.png', b'nothing', FRAMES, 'is an image, but the network takes samples'),
    ('a.npy', b'nothing', IMAGES, 'cannot be read'),
    ('a.bin', b'12345', IMAGES, 'is a recording, but the network takes images'),
  ],
)
def test_what_cannot_be_read_is_said(name, content, net, message, tmp_path):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message) as info:
    read_samples(tmp_path / name, net)
  assert '\n' not in str(info.value)


def test_samples_of_another_shape_are_refused(tmp_path):
  np.save(tmp_path / 'a.npy', np.zeros((3, 4, 4, 2)))
  with pytest.raises(UserError, match=r'\(3, 4, 4, 2\).*\(2, 4, 4, 2\)'):
    read_samples(tmp_path / 'a.npy', FRAMES)
  longer = dataclasses.replace(FRAMES, preprocessing=prepared((3, 4, 4, 2)))
  layout = [('t', 'i8'), ('x', 'i2'), ('y', 'i2'), ('p', 'i1')]
  np.save(tmp_path / 'b.npy', np.zeros(1, layout))
  with pytest.raises(UserError, match=r'frames of shape \(2, 4, 4, 2\)'):
    read_samples(tmp_path / 'b.npy', longer)
