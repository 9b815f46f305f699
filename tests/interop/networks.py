"""Small untrained networks on images and on frames, to be taken elsewhere."""

import dataclasses

import jax
import numpy as np

from mlf_jax import layers
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.models import SpikingResNet
from mlf_jax.training import default_config
from tests import quick


@dataclasses.dataclass(frozen=True)
class CallsPython(layers.MLF):
  """A unit with an operation that no file can hold."""

  def step(self, parameters, state, x_t):
    x_t = jax.pure_callback(lambda x: x, x_t, x_t)
    return super().step(parameters, state, x_t)


@dataclasses.dataclass(frozen=True)
class Prints(layers.MLF):
  """A unit that prints."""

  def step(self, parameters, state, x_t):
    jax.debug.print('{}', x_t.sum())
    return super().step(parameters, state, x_t)


@dataclasses.dataclass(frozen=True)
class DividesByZero(layers.MLF):
  """A unit with a mistake of its own, which is no limit of a format."""

  def step(self, parameters, state, x_t):
    return super().step(parameters, state, x_t * (1 // 0))


SHAPES = {'images': (8, 8, 1), 'frames': (5, 8, 8, 2)}


def make(kind, **attributes):
  """A network of three levels with a projection shortcut; weights are random.

  Args:
    kind: 'images' or 'frames'.
    **attributes: of the network.
  """
  shape = SHAPES[kind]
  model = SpikingResNet((1, 1, 1), (4, 6, 8), 3, 5, **attributes)
  variables = quick.variables(model, np.zeros((1, *shape), np.float32))
  channels = (0.3,) * shape[-1], (0.4,) * shape[-1]
  preprocessing = Preprocessing(
    shape, 3, ('up', 'down', 'turn'), 16.0, *channels
  )
  data = 'digits' if kind == 'images' else 'frame_arrays'
  return TrainedNetwork(
    default_config(data=data), model, variables, preprocessing, 0
  )


def samples(kind, count=7):
  """Raw random samples."""
  shape = (count, *SHAPES[kind])
  return np.random.default_rng(0).integers(0, 17, shape, np.uint8)
