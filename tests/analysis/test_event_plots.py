"""The picture of a recording shows events, frames and spikes."""

import functools
import importlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import mlf
from mlf_jax.analysis import event_plots, unit_plots
from mlf_jax.data.events import Events, FrameSpec
from mlf_jax.errors import UserError
from mlf_jax.layers import TDBatchNorm
from mlf_jax.models import SpikingResNet
from tests import quick


@pytest.fixture(scope='module')
def few_events():
  # Timestep 1: three brighter in one corner; 2: one darker in the other.
  return Events(
    t=np.array([0, 10, 20, 1500]),
    x=np.array([0, 0, 0, 3], np.uint16),
    y=np.array([0, 0, 0, 5], np.uint16),
    p=np.array([1, 1, 1, 0], np.uint8),
    sensor_size=(6, 4),
  )


def test_recording_shows_events_frames_and_spikes(tmp_path, few_events):
  spec = FrameSpec(3, 'window', 1000)
  spikes = np.zeros((3, 2, 2, 5), np.float32)
  spikes[1, 0, 1, 4] = 2
  figure = event_plots.recording(
    few_events, spec, spikes, num_levels=3, channels=(4, 1)
  )
  space, frames, channel_4, channel_1, bar = figure.axes

  darker, brighter = (dots.get_offsets() for dots in space.collections)
  assert (len(darker), len(brighter)) == (1, 3)
  # In timesteps; the first column is where it is, the last one to its right.
  np.testing.assert_allclose(brighter[:, 0], [0, 0.01, 0.02])
  assert 1.5 < darker[0, 0] < 2.5

  def pixels(axes):
    return [image.get_array() for image in axes.get_images()]

  first, second, third = pixels(frames)
  assert first.shape == (6, 4, 3)
  assert first[0, 0, 0] > first[0, 0, 2] and second[5, 3, 2] > second[5, 3, 0]
  for image, event in ((first, (0, 0)), (second, (5, 3))):
    assert np.argwhere((image < 1).any(-1)).tolist() == [list(event)]
  assert np.all(third == 1)
  # More events, more ink.
  assert first[0, 0].sum() < second[5, 3].sum()

  image = pixels(channel_4)[1]
  assert np.argwhere((image != image[0, 0]).any(-1)).tolist() == [[0, 1]]
  scale = bar.collections[-1].get_cmap()
  np.testing.assert_array_equal(image[0, 1], scale(2)[:3])
  np.testing.assert_array_equal(image[0, 0], scale(0)[:3])
  assert scale.N == 4
  assert len({bytes(np.asarray(image)) for image in pixels(channel_1)}) == 1

  figure.savefig(tmp_path / 'events.png')
  assert (tmp_path / 'events.png').read_bytes().startswith(b'\x89PNG')


def test_recording_of_nothing_is_refused(few_events):
  with pytest.raises(UserError, match='without events'):
    event_plots.recording(
      few_events[:0], FrameSpec(1, 'count'), np.zeros((1, 2, 2, 4)), 3
    )


@pytest.mark.parametrize(
  ('shape', 'channels', 'message'),
  [
    ((2, 2, 2, 4), None, 'spikes have 2 timesteps, but there are 1 frames'),
    ((1, 2, 2, 3), (0, 3), 'names 3, but spikes have the channels 0 to 2'),
    ((1, 2, 2), None, r'spikes must have the axes \[time, height, width, cha'),
  ],
)
def test_spikes_that_cannot_be_drawn(few_events, shape, channels, message):
  with pytest.raises(UserError, match=message) as error:
    event_plots.recording(
      few_events, FrameSpec(1, 'count'), np.zeros(shape), 3, channels
    )
  assert '\n' not in str(error.value)


def test_few_channels_are_all_drawn(few_events):
  figure = event_plots.recording(
    few_events, FrameSpec(1, 'count'), np.zeros((1, 2, 2, 2)), 3
  )
  labels = [axes.get_ylabel() for axes in figure.axes]
  assert labels[1:4] == ['frames', 'channel 0', 'channel 1']


@pytest.mark.parametrize('module', [unit_plots, event_plots])
def test_without_matplotlib_one_line_says_how_to_install_it(
  monkeypatch, module
):
  monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r'need matplotlib: pip install "mlf_jax'):
    importlib.reload(module)


def test_first_spikes_are_those_of_the_stem():
  model = SpikingResNet((1,), (3,), num_classes=2, time_steps=4)
  frames = np.random.default_rng(0).integers(0, 4, (2, 4, 5, 6, 2), np.uint8)
  variables = quick.variables(model, frames)

  @functools.partial(jax.jit, static_argnums=0)
  def by_hand(train, variables, frames):
    x = jnp.swapaxes(frames, 0, 1).astype(jnp.float32)
    kernel = variables['params']['conv1']['kernel']
    x = nn.Conv(3, (3, 3), padding=1, use_bias=False).apply(
      {'params': {'kernel': kernel}}, x
    )
    x, _ = TDBatchNorm().apply(
      {c: v['bn1'] for c, v in variables.items()},
      x,
      not train,
      mutable='batch_stats',
    )
    return jnp.swapaxes(mlf(x), 0, 1)

  for train in (False, True):
    expected = by_hand(train, variables, frames)
    found = event_plots.first_spikes(model, variables, frames, train)
    assert found.shape == (2, 4, 5, 6, 3)
    np.testing.assert_array_equal(found, expected)
    assert {0, 1} <= set(np.unique(found).tolist())
