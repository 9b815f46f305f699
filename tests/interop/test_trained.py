"""A trained network in a program: load, classify, stream."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import mlf_jax
from mlf_jax import data
from mlf_jax.data.events import from_array
from mlf_jax.errors import UserError
from mlf_jax.training import evaluate
from tests.interop import networks

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_a_loaded_network_classifies_as_the_run_did(finished):
  workdir, _ = finished
  net, digits = mlf_jax.load(workdir), data.load('digits')
  result = json.loads((workdir / 'result.json').read_text())
  names, probabilities = net.predict(digits.test.images)
  assert net.step == result['best/step']
  right = np.mean([int(n) for n in names] == digits.test.labels)
  assert right == result['best/test/accuracy']
  logits = net(digits.test.images)
  assert logits.dtype == np.float32 and logits.shape == (len(digits.test), 10)
  np.testing.assert_allclose(
    probabilities, jax.nn.softmax(logits), rtol=1e-5, atol=1e-7
  )
  last = mlf_jax.load(workdir, 'last')
  assert last.step == result['steps']
  # Any number of samples; XLA adds up in another order for other sizes.
  for count in (0, 1, 3):
    few = net(digits.test.images[:count])
    np.testing.assert_allclose(few, logits[:count], atol=1e-5)


def test_a_loaded_network_is_shown_in_one_line(gestures):
  weights = jax.tree.leaves(gestures.variables['params'])
  assert repr(gestures) == (
    f'TrainedNetwork(SpikingResNet, {sum(w.size for w in weights):,} '
    'parameters, 3 classes, 5 timesteps)'
  )


def test_other_timesteps_run(copied):
  line = evaluate(copied, 'best', 3)
  net, test = mlf_jax.load(copied, time_steps=3), data.load('digits').test
  right = net(test.images).argmax(-1) == test.labels
  assert right.mean() == line['test/accuracy']


@pytest.fixture(scope='module')
def gestures():
  """An untrained network for frames, with names of classes."""
  return networks.make('frames')


def test_pieces_of_a_recording_end_with_the_logits_of_the_whole(gestures):
  frames = np.random.default_rng(0).poisson(1, (1, 5, 8, 8, 2)).astype(np.uint8)
  stream = gestures.stream()
  stream.feed(frames[:, :2])
  # One recording needs no batch axis.
  logits = stream.feed(frames[0, 2:])
  np.testing.assert_array_equal(logits, gestures(frames))
  assert gestures.decide(logits).names[0] in gestures.class_names


def test_events_are_refused_by_what_takes_frames(gestures):
  fields = [('t', 'i8'), ('x', 'i2'), ('y', 'i2'), ('p', 'i1')]
  recording = from_array(np.zeros(3, fields), (8, 8))
  for take in (gestures, gestures.stream().feed):
    with pytest.raises(UserError, match=r'takes frames .* net\.frames\.frames'):
      take(recording)


@pytest.mark.parametrize(
  ('samples', 'message'),
  [
    (np.zeros((2, 5, 8, 8)), r'samples must be \[batch, 5, 8, 8, 2\], got'),
    (np.full((1, 5, 8, 8, 2), np.nan), 'sample 0|NaN'),
  ],
)
def test_samples_that_cannot_be_are_refused(gestures, samples, message):
  with pytest.raises(UserError, match=message) as info:
    gestures(samples)
  assert '\n' not in str(info.value)


def test_a_float64_network_gives_float64(finished):
  net = mlf_jax.load(finished[0])
  config = net.config.copy_and_resolve_references()
  config.model.dtype = 'float64'
  with jax.enable_x64():
    variables = jax.tree.map(lambda a: a.astype('float64'), net.variables)
  wide = dataclasses.replace(net, config=config, variables=variables)
  images = data.load('digits').test.images[:4]
  assert wide(images).dtype == np.float64
  np.testing.assert_allclose(wide(images), net(images), atol=1e-4)


def test_what_is_no_run_is_said(tmp_path):
  with pytest.raises(UserError, match=r'config.json does not exist; is this'):
    mlf_jax.load(tmp_path)
