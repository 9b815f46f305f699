"""Mistakes of those who register parts of their own: one clear line each."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import pytest

from mlf_jax import UserError
from mlf_jax.layers import UNITS, SpikingUnit
from mlf_jax.layers.memory_modes import MODES
from mlf_jax.models import BLOCKS, ResidualBlock
from mlf_jax.registry import Registry, instance_of
from mlf_jax.training import LOSSES

frozen = dataclasses.dataclass(frozen=True)


class Base(SpikingUnit):
  def init_state(self, parameters, shape, dtype):
    return jnp.zeros(shape, dtype)

  def step(self, parameters, state, x_t):
    return state, x_t


@frozen
class NoStep(SpikingUnit):
  init_state = Base.init_state


@frozen
class NoDefault(Base):
  decay: float


@frozen
class UnknownKey(Base):
  decay: float = dataclasses.field(default=0.5, metadata={'min': 0})


@frozen
class RangeAsProperty(Base):
  output_range = (0, 1)


class NoCall(ResidualBlock):
  pass


@pytest.mark.parametrize(
  ('registry', 'part', 'message'),
  [
    (UNITS, 3, "unit 'own': it must be a class based on SpikingUnit, got 3"),
    (UNITS, NoStep, "unit 'own': NoStep has no method step"),
    (UNITS, Base, 'Base must be a frozen dataclass: put @dataclasses'),
    (UNITS, NoDefault, 'field decay of NoDefault has no default'),
    (UNITS, UnknownKey, r"metadata of field decay .* holds \['min'\]; known"),
    (UNITS, RangeAsProperty, 'output_range is a method'),
    (BLOCKS, nn.Dense, 'it must be a class based on ResidualBlock'),
    (BLOCKS, NoCall, 'NoCall has no method __call__'),
    (LOSSES, len, r"loss 'own': it must be a Loss\(\.\.\.\), got <built-in"),
    (MODES, 'own', 'it must be a MemoryMode'),
  ],
)
def test_a_part_that_cannot_work_is_refused_at_once(registry, part, message):
  with pytest.raises(UserError, match=message):
    registry['own'] = part
  assert 'own' not in registry


def test_names_of_the_library_stay_its_own():
  with pytest.raises(UserError, match="'mlf' is part of mlf_jax; choose"):
    UNITS.register('mlf')(frozen(type('Mine', (Base,), {})))
  with pytest.raises(UserError, match='is registered with a name'):
    UNITS.register(Base)


def test_a_name_of_ones_own_stands_for_the_later_part():
  registry = Registry('number', instance_of(int))
  registry.register('one')(1)
  registry['one'] = 2
  assert registry['one'] == 2
  with pytest.raises(UserError, match="number 'two' is unknown; known: one"):
    registry['two']


@pytest.mark.parametrize(
  'step', [lambda u, x: x, lambda u, x: (x[None], x), lambda u, x: (u, x[0])]
)
def test_a_step_that_returns_something_else_is_named(step):
  unit = frozen(
    type('Mine', (Base,), {'step': lambda self, p, u, x: step(u, x)})
  )()
  x = jnp.zeros((2, 3, 4))
  with pytest.raises(UserError, match=r'Mine\.step must return \(state, out'):
    unit.run({}, x, unit.init_state({}, (3, 4), x.dtype))
