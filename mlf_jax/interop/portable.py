"""A trained network in plain operations, which every format can express.

The fast paths choose by platform, pack spikes into bits and call kernels, whose
form is not stable. Here each unit is its `step`, folded over time.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax

from mlf_jax.errors import UserError
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.layers import (
  INITIAL_STATE,
  MEMBRANE_POTENTIAL,
  MLF,
  SpikingUnit,
)

_ANY_UNIT = MLF()


@dataclasses.dataclass(frozen=True)
class StepByStep(SpikingUnit):
  """A unit whose `run` folds its `step`."""

  # Fields of a unit have defaults.
  unit: SpikingUnit = _ANY_UNIT

  @property
  def norm_threshold(self):
    """Returns the threshold that the replaced unit has."""
    return self.unit.norm_threshold

  def learned(self, shape):
    """Returns the learned parameters of the replaced unit."""
    return self.unit.learned(shape)

  def output_range(self, input_range=None):
    """Returns the output range of the replaced unit."""
    return self.unit.output_range(input_range)

  def init_state(self, parameters, shape, dtype):
    """Returns the initial state of the replaced unit."""
    return self.unit.init_state(parameters, shape, dtype)

  def step(self, parameters, state, x_t):
    """Advances the replaced unit by one timestep."""
    return self.unit.step(parameters, state, x_t)


def portable_model(model: nn.Module) -> nn.Module:
  """The network with units that run step by step, on one device.

  Raises:
    UserError: it is no network with spiking units that can be replaced.
  """
  if not isinstance(getattr(model, 'unit', None), SpikingUnit):
    raise UserError(
      f'{type(model).__name__} has no attribute unit, a spiking unit, so that '
      'it cannot be exported'
    )
  plain = {'memory': 'fastest', 'scan_blocks': False, 'axis_name': None}
  plain = {name: v for name, v in plain.items() if hasattr(model, name)}
  return model.clone(unit=StepByStep(model.unit), **plain)


def whole_function(net: TrainedNetwork) -> Callable:
  """The function from raw samples to logits, with the weights inside."""
  model = portable_model(net.model)

  def logits(samples):
    inputs = net.preprocessing.normalize(samples, net.dtype)
    return model.apply(net.variables, inputs)

  return logits


def stream_functions(net: TrainedNetwork) -> tuple[Callable, Callable]:
  """The functions that start a stream and feed it one frame at a time.

  Returns:
    `start(frame)`, which returns the state before the first frame as a list of
    arrays, and `feed(state, frame)`, which returns the next state and the
    logits for all frames so far. A frame is raw, [batch, height, width,
    channel]; of the one that `start` gets only the shape matters.
  """
  model = portable_model(net.model).clone(time_steps=1)

  def apply(frame, state, collection):
    inputs = net.preprocessing.normalize(frame[:, None], net.dtype)
    return model.apply({**net.variables, **state}, inputs, mutable=[collection])

  def initial(frame):
    return apply(frame, {}, INITIAL_STATE)[1][INITIAL_STATE]

  def start(frame):
    return jax.tree.leaves(initial(frame))

  def feed(state, frame):
    structure = jax.tree.structure(jax.eval_shape(initial, frame))
    collection = jax.tree.unflatten(structure, state)
    logits, new = apply(
      frame, {MEMBRANE_POTENTIAL: collection}, MEMBRANE_POTENTIAL
    )
    return jax.tree.leaves(new[MEMBRANE_POTENTIAL]), logits

  return start, feed


@contextlib.contextmanager
def expressible(format_name: str) -> Iterator[None]:
  """Raises `UserError` for what a writer raises about an operation.

  Nothing of the user's own may run inside: trace the function before.

  Args:
    format_name: name of the format, for the message.
  """
  try:
    yield
  except Exception as error:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
      f'{format_name} cannot express an operation of the network: {reason}'
    ) from error
