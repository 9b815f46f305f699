"""Optimisers and schedules against their closed forms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlf_jax.training import optimizer as optimizer_lib
from tests.training import tiny

G = np.array([0.3, -0.2], np.float32)
P0 = np.array([1.0, -2.0], np.float32)


def updates(config, gradients, rate=0.1):
  optimizer = optimizer_lib.make_optimizer(
    config, optax.constant_schedule(rate)
  )
  params = jnp.asarray(P0)
  state = optimizer.init(params)
  path = [params]
  for g in gradients:
    update, state = optimizer.update(jnp.asarray(g), state, params)
    params = optax.apply_updates(params, update)
    path.append(params)
  np.testing.assert_allclose(optimizer_lib.learning_rate(state), rate)
  return np.stack(path)


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_adds_l2_to_the_gradient(nesterov):
  config = tiny.config(
    optimizer__weight_decay=0.01, optimizer__nesterov=nesterov
  )
  p, v, expected = P0, 0.0, [P0]
  for _ in range(3):
    g = G + 0.01 * p
    v = 0.9 * v + g
    p = p - 0.1 * (g + 0.9 * v if nesterov else v)
    expected.append(p)
  np.testing.assert_allclose(updates(config, [G] * 3), expected, rtol=1e-5)


@pytest.mark.parametrize('nesterov', [False, True])
def test_adamw_decays_apart_from_the_gradient(nesterov):
  config = tiny.config(
    optimizer__name='adamw',
    optimizer__weight_decay=0.1,
    optimizer__momentum=0.8,
    optimizer__nesterov=nesterov,
  )
  path = updates(config, [G], rate=0.01)
  # Whatever its size, the first step of Adam is one learning rate; with
  # Nesterov it looks one step further.
  further = 0.8 * 0.2 / (1 - 0.8**2) + 0.2 / (1 - 0.8)
  first = np.sign(G) * (further if nesterov else 1)
  np.testing.assert_allclose(path[1], P0 - 0.01 * (first + 0.1 * P0), rtol=1e-4)


def test_clip_norm():
  config = tiny.config(optimizer__clip_norm=0.1, optimizer__weight_decay=0.0)
  path = updates(config, [1000 * G])
  step = -0.1 * 0.1 * G / np.linalg.norm(G)
  np.testing.assert_allclose(path[1] - path[0], step, rtol=1e-4)


def test_accumulation():
  config = tiny.config(
    optimizer__accumulate_steps=2,
    optimizer__weight_decay=0.0,
    optimizer__momentum=0.0,
  )
  path = updates(config, [G, 3 * G])
  np.testing.assert_array_equal(path[1], P0)
  np.testing.assert_allclose(path[2], P0 - 0.1 * 2 * G, rtol=1e-5)


def rates(config, steps, steps_per_epoch=10, num_steps=100):
  schedule = optimizer_lib.make_schedule(config, steps_per_epoch, num_steps)
  return [float(schedule(jnp.int32(step))) for step in steps]


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, {0: 0.2, 39: 0.2, 40: 0.1, 79: 0.1, 80: 0.05, 99: 0.05}),
    # A warm-up does not move the boundaries.
    (
      {'schedule__warmup_epochs': 2.0},
      {0: 0.0, 10: 0.1, 20: 0.2, 39: 0.2, 40: 0.1, 80: 0.05},
    ),
    (
      {'schedule__name': 'cosine', 'schedule__warmup_epochs': 2.0},
      {0: 0.0, 10: 0.1, 20: 0.2, 60: 0.1, 100: 0.0},
    ),
    ({'schedule__name': 'constant'}, {0: 0.2, 50: 0.2, 99: 0.2}),
    # Updates are counted: epoch 4 begins at step 40, which is update 10.
    ({'optimizer__accumulate_steps': 4}, {9: 0.2, 10: 0.1}),
  ],
)
def test_schedules(changes, expected):
  config = tiny.config(
    optimizer__learning_rate=0.2,
    schedule__step_epochs=4,
    schedule__step_factor=0.5,
    **changes,
  )
  schedule = optimizer_lib.make_schedule(config, 10, 100)
  rates = [float(schedule(jnp.int32(update))) for update in expected]
  np.testing.assert_allclose(rates, [*expected.values()], rtol=1e-6, atol=1e-7)
