"""Recordings in pieces: the numbers of the whole, to the last bit."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, stream
from mlf_jax.layers import MLF, Readout
from mlf_jax.models import SpikingResNet, SpikingVGG

RESNET = functools.partial(
  SpikingResNet, stage_sizes=(1, 1), widths=(4, 6), num_classes=5, time_steps=3
)
# The last spikes are 5x5: a division by 25 rounds.
SHAPE = (10, 10, 2)


def recordings(shape=SHAPE, batch=2, seed=0):
  """Counts of events; those of two recordings differ."""
  rate = np.linspace(0.3, 0.9, batch).reshape(-1, 1, 1, 1, 1)
  random = np.random.default_rng(seed)
  return random.poisson(rate, (batch, 4, *shape)).astype(np.uint8)


@functools.cache
def trained(model, shape=SHAPE):
  """Variables under which every layer fires.

  Convolutions with these weights, of whole numbers or of quarters, do not
  round, which they do differently for another number of frames on some
  processors.
  """
  frames = jax.ShapeDtypeStruct((1, model.time_steps, *shape), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), frames)
  random = np.random.default_rng(0)
  variables = {
    'params': jax.tree.map(
      lambda v: (
        np.round(64 * random.normal(0.1, 0.4, v.shape)).astype(v.dtype) / 64
      ),
      shapes['params'],
    ),
    'batch_stats': jax.tree.map(
      lambda v: random.uniform(0.1, 0.5, v.shape).astype(v.dtype),
      shapes['batch_stats'],
    ),
  }
  if 'bn0' in variables['batch_stats']:
    statistics = variables['batch_stats']['bn0']
    # The threshold over the standard deviation and epsilon, the scale, is 1.
    statistics['var'][:] = (0.6 - 1e-5) ** 2
    statistics['mean'][:] = 0.25
  return variables


@functools.partial(jax.jit, static_argnums=0)
def offline(model, variables, frames):
  return model.clone(time_steps=frames.shape[1]).apply(variables, frames)


def feed(model, variables, frames, *lengths):
  """The last state, and the logits after each piece of a recording."""
  state = stream.init(model, variables, frames.shape[2:], len(frames))
  pieces = np.split(frames, np.cumsum(lengths)[:-1], axis=1)
  logits = []
  for piece in pieces:
    state, new = stream.feed(model, variables, state, piece)
    logits.append(new)
  return state, logits


def check_pieces(model, variables, frames):
  one_by_one, running = feed(model, variables, frames, 1, 1, 1, 1)
  uneven, (after_one, last) = feed(model, variables, frames, 1, 3)
  logits = offline(model, variables, frames)
  chex.assert_trees_all_equal(one_by_one, uneven)
  chex.assert_trees_all_equal(logits, running[-1], last)
  np.testing.assert_array_equal(after_one, running[0])
  spikes, time_steps = uneven.collection['Readout_0']['state']
  assert time_steps == 4 and spikes.dtype == jnp.float32
  spikes = np.asarray(spikes)
  np.testing.assert_array_equal(spikes, np.round(spikes))
  assert np.all(spikes.sum(-1) > 0) and np.any(spikes[0] != spikes[1])


@pytest.mark.parametrize(
  'attributes',
  [
    {'normalize_input': True},
    {'residual': 'plain', 'unit': MLF(decay=0.3), 'dtype': jnp.bfloat16},
  ],
)
def test_pieces_equal_the_whole(attributes):
  model = RESNET(**attributes)
  check_pieces(model, trained(model), recordings())


def test_pieces_equal_the_whole_in_vgg(flax_pools):
  shape = (6, 6, 2)
  model = SpikingVGG(3, 3, widths=((4, 4), (8,)))
  check_pieces(model, trained(model, shape), recordings(shape))


def test_pieces_equal_the_whole_but_for_rounding_without_whole_numbers():
  """A projection that ends in tdBN adds its current to the spikes."""
  model = RESNET(shortcut='norm')
  variables, frames = trained(model), recordings()
  _, logits = feed(model, variables, frames, 1, 1, 1, 1)
  expected = offline(model, variables, frames)
  np.testing.assert_allclose(logits[-1], expected, rtol=1e-5, atol=1e-5)


def test_a_mean_is_rounded_alike_alone_and_among_others():
  """XLA makes a division a product with the reciprocal, but not of one number.

  The last bit of the two differs for one sum in four.
  """
  read = jax.jit(
    functools.partial(
      Readout(1, jnp.float32).apply, mutable=['membrane_potential']
    )
  )

  def mean_of(spikes):
    u = jnp.zeros((1, spikes.shape[-1]))
    state = {'membrane_potential': {'state': (u, jnp.int32(0))}}
    for frame in spikes:
      mean, state = read(state, frame)
    return mean

  random = np.random.default_rng(0)
  spikes = random.integers(0, 4, (3, 1, 5, 5, 64)).astype(np.float32)
  together = mean_of(spikes)
  np.testing.assert_allclose(together, spikes.mean((0, 2, 3)), rtol=1e-6)
  for k in range(64):
    alone = mean_of(spikes[..., k : k + 1])
    np.testing.assert_array_equal(alone, together[:, k : k + 1])


def test_streams_do_not_mix():
  """Whether fed in turn or side by side."""
  model = RESNET(normalize_input=True)
  variables = trained(model)
  both = recordings()
  states = [stream.init(model, variables, SHAPE) for _ in both]
  logits = [None, None]
  for i, k in itertools.product(range(4), range(2)):
    states[k], logits[k] = stream.feed(
      model, variables, states[k], both[k : k + 1, i : i + 1]
    )
  assert np.any(logits[0] != logits[1])
  for k in range(2):
    alone = offline(model, variables, both[k : k + 1])
    np.testing.assert_array_equal(logits[k], alone)
  together = offline(model, variables, both)
  np.testing.assert_allclose(np.concatenate(logits), together, rtol=1e-5)


def test_numbers_that_are_not_finite_are_named_if_asked_for():
  model = RESNET(normalize_input=True)
  variables = trained(model)
  frames = recordings().astype(np.float32)
  state = stream.init(model, variables, SHAPE, 2)
  frames[1, 0, 3, 4, 1] = np.nan
  message = r'frames: sample 1 holds NaN or infinity, first at \[0, 3, 4, 1\]'
  with pytest.raises(UserError, match=message):
    stream.feed(model, variables, state, frames[:, :1], check_finite=True)
  # Otherwise nothing is said, and the place does not fire.
  _, logits = stream.feed(model, variables, state, frames[:, :1])
  assert np.isfinite(logits).all()


def test_a_state_can_be_continued_twice():
  model = RESNET(normalize_input=True)
  variables, frames = trained(model), recordings()
  state = stream.init(model, variables, SHAPE, 2)
  state, _ = stream.feed(model, variables, state, frames[:, :1])
  once, again, other = (
    stream.feed(model, variables, state, frames[:, i : i + 1])
    for i in (1, 1, 2)
  )
  chex.assert_trees_all_equal(once, again)
  assert np.any(once[1] != other[1])


@pytest.mark.parametrize(
  'shape',
  [
    (2, 10, 10, 2),
    (2, 1, 10, 9, 2),
    (2, 1, 10, 10, 1),
    (1, 1, 10, 10, 2),
    (2, 0, 10, 10, 2),
  ],
)
def test_mistakes_of_the_frames(shape):
  model = RESNET(normalize_input=True)
  variables = trained(model)
  state = stream.init(model, variables, SHAPE, 2)
  message = f'shape {shape} do not continue recordings of shape [2, time, 10, '
  with pytest.raises(UserError, match=re.escape(message)):
    stream.feed(model, variables, state, jnp.zeros(shape))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (((8, 8),), r'must be \(height, width, channel\), got \(8, 8\)'),
    ((8,), r'must be \(height, width, channel\), got 8'),
    (((8, 0, 2),), 'frame_shape must be positive'),
    ((SHAPE, 0), 'batch_size must be positive'),
    (
      ((8, 8, 1),),
      r'frames of \(8, 8, 1\): params/conv1/kernel is \(3, 3, 2, 4\) instead '
      r'of \(3, 3, 1, 4\)',
    ),
  ],
)
def test_mistakes_of_the_start(arguments, message):
  model = RESNET()
  with pytest.raises(UserError, match=message):
    stream.init(model, trained(model), *arguments)


def test_variables_of_another_network():
  model = RESNET(normalize_input=True)
  with pytest.raises(UserError, match='batch_stats/bn0/mean is missing'):
    stream.init(model, trained(RESNET()), SHAPE)
