"""Spiking units: the seam through which networks know their neurons.

A unit is a frozen, hashable description made of plain numbers. A network asks
it for everything it has to know, so that a unit of one's own takes one class:

    @UNITS.register('leaky')
    @dataclasses.dataclass(frozen=True)
    class Leaky(SpikingUnit):
      decay: float = 0.5

      def init_state(self, parameters, shape, dtype):
        return jnp.zeros(shape, dtype)

      def step(self, parameters, state, x_t):
        state = self.decay * state + x_t
        return state, jnp.tanh(state)
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlf_jax import neuron
from mlf_jax.errors import UserError, require_floating
from mlf_jax.registry import Registry, subclass_of

# Collection with the state that a network carries from piece to piece of a
# recording, and collection in which it leaves the state it starts from.
MEMBRANE_POTENTIAL = 'membrane_potential'
INITIAL_STATE = 'initial_state'
# Collection in which `mlf_jax.activity` notes what it sees inside of layers.
OBSERVED = 'observed'

Range = tuple[int, int]


class Observation(NamedTuple):
  """Inside of a unit, for analysis.

  `membrane_potential` holds the potentials before the reset.
  """

  membrane_potential: Float[Array, 'time level *shape']
  fired: Bool[Array, 'time level *shape']
  in_window: Bool[Array, 'time level *shape']


class SpikingUnit(abc.ABC):
  """Base of all units: a frozen dataclass of plain numbers overrides this.

  `init_state` and `step` are all that a unit has to define; `step` is its
  specification. The fields of the dataclass are fields of `config.unit`, so
  each carries an explanation: `dataclasses.field(default=0.5,
  metadata={'help': 'decay of the membrane potential', 'low': 0, 'high': 1})`.
  A unit that can tell its membranes, fired levels and window membership also
  defines `observe`, with the arguments of `run`, returning an `Observation`.

  `parameters` in the methods below are the values of the parameters that the
  unit learns, by name.
  """

  # Threshold to which the normalisation scales the current.
  norm_threshold: float = 1.0

  def learned(
    self, shape: tuple[int, ...]
  ) -> Mapping[str, Callable[[Array, jnp.dtype], Array]]:
    """Names and initialisers of the parameters that the unit learns.

    They become Flax parameters of the layer that holds the unit.

    Args:
      shape: shape of one sample's current at one timestep, channels last.

    Returns:
      Names to functions of a random key and a dtype.
    """
    del shape
    return {}

  def output_range(self, input_range: Range | None = None) -> Range | None:
    """Smallest and largest whole number that the unit can emit.

    Args:
      input_range: range of the current if it is whole numbers, else None.

    Returns:
      The range; None if the unit emits numbers that are not whole.
    """
    del input_range
    return None

  @abc.abstractmethod
  def init_state(
    self, parameters: Mapping[str, Array], shape: tuple[int, ...], dtype
  ) -> Any:
    """State before the first timestep, a pytree.

    Args:
      parameters: values of the learned parameters.
      shape: shape of the current at one timestep, batch first.
      dtype: dtype of the current, float32 or wider.
    """

  @abc.abstractmethod
  def step(
    self,
    parameters: Mapping[str, Array],
    state: Any,
    x_t: Float[Array, '*shape'],
  ) -> tuple[Any, Float[Array, '*shape']]:
    """Advances the unit by one timestep; the specification.

    Args:
      parameters: values of the learned parameters.
      state: state after the timestep before.
      x_t: input current.

    Returns:
      The new state, and the output in the shape and dtype of `x_t`.
    """

  def run(
    self,
    parameters: Mapping[str, Array],
    x: Float[Array, 'time *shape'],
    state: Any,
    affine: neuron.Affine | None = None,
  ) -> tuple[Any, Float[Array, 'time *shape']]:
    """Runs the unit over a recording; folds `step` unless overridden.

    Args:
      parameters: values of the learned parameters.
      x: input current, or what `affine` turns into it.
      state: state to start from.
      affine: coefficients of a normalisation per channel, or None.

    Returns:
      The final state, and the output in the shape of `x`.
    """
    current = x if affine is None else affine(x)
    # The carry varies over the mesh axes that the current varies over.
    parameters, state, current = neuron.vary_alike(
      dict(parameters), state, current
    )

    def body(state, x_t):
      return self.step(parameters, state, x_t)

    self._check_step(body, state, current[0])
    return jax.lax.scan(body, state, current)

  def _check_step(self, body, state, x_t):
    """Raises `UserError` unless `step` returns what it has to."""
    describe = lambda tree: jax.tree.map(
      lambda a: f'{a.dtype}{list(a.shape)}', tree
    )
    wanted = jax.eval_shape(lambda *args: args, state, x_t)
    returned = jax.eval_shape(body, state, x_t)
    if describe(returned) != describe(wanted):
      raise UserError(
        f'{type(self).__name__}.step must return (state, output) shaped as '
        f'{describe(wanted)}, the state as from init_state and the output as '
        f'x_t; got {describe(returned)}'
      )


def unit_problem(cls: type) -> str | None:
  """Tells what is wrong with a class of units, None if nothing is."""
  if problem := subclass_of(SpikingUnit)(cls):
    return problem
  # Own fields only: `is_dataclass` is True for a subclass of a dataclass too.
  params = cls.__dict__.get('__dataclass_params__')
  if params is None or not params.frozen:
    return (
      f'{cls.__name__} must be a frozen dataclass: put '
      '@dataclasses.dataclass(frozen=True) above it'
    )
  for field in dataclasses.fields(cls):
    if field.default is dataclasses.MISSING:
      return f'field {field.name} of {cls.__name__} has no default'
    if unused := field.metadata.keys() - _METADATA:
      return (
        f'the metadata of field {field.name} of {cls.__name__} holds '
        f'{sorted(unused)}; known: {", ".join(_METADATA)}'
      )
  if not callable(cls.output_range) or callable(cls.norm_threshold):
    return (
      f'{cls.__name__}.output_range is a method, {cls.__name__}.norm_threshold '
      'a number or a property'
    )
  return None


# Classes of units, by the name in `config.unit.name`.
UNITS: Registry[type[SpikingUnit]] = Registry('unit', unit_problem)
_METADATA = ('help', 'choices', 'low', 'high', 'above', 'below')


@UNITS.register('mlf')
@dataclasses.dataclass(frozen=True)
class MLF(SpikingUnit):
  """Multi-level firing unit; see `mlf_jax.neuron`.

  Raises `UserError` for a value outside its range.
  """

  thresholds: tuple[float, ...] = dataclasses.field(
    default=neuron.MLFParams.thresholds,
    metadata={
      'help': 'firing threshold of each level, increasing; the first scales '
      'the normalisation',
      'above': 0,
    },
  )
  decay: float = dataclasses.field(
    default=neuron.MLFParams.decay,
    metadata={
      'help': 'decay of the membrane potential per timestep; 1 has no leak',
      'low': 0,
      'high': 1,
    },
  )
  width: float = dataclasses.field(
    default=neuron.MLFParams.width,
    metadata={
      'help': 'width of the surrogate window around each threshold',
      'above': 0,
    },
  )
  surrogate: str = dataclasses.field(
    default=neuron.MLFParams.surrogate,
    metadata={
      'help': 'shape of the surrogate window',
      'choices': neuron.SURROGATES,
    },
  )

  def __post_init__(self):
    """Validates the values."""
    params = self._params
    # Plain numbers, so that descriptions are hashable.
    thresholds = tuple(map(float, params.thresholds))
    object.__setattr__(self, 'thresholds', thresholds)

  @property
  def _params(self):
    return neuron.MLFParams(
      self.thresholds, self.decay, self.width, self.surrogate
    )

  @property
  def norm_threshold(self):
    """The first threshold."""
    return self.thresholds[0]

  def output_range(self, input_range=None):
    """From no level fired to all of them."""
    del input_range
    return 0, len(self.thresholds)

  def init_state(self, parameters, shape, dtype):
    """Membrane potentials at rest, `neuron.MLFState`."""
    del parameters
    return neuron.init_state(self._params, shape, dtype)

  def step(self, parameters, state, x_t):
    """`neuron.step`."""
    del parameters
    return neuron.step(self._params, state, x_t)

  def run(self, parameters, x, state, affine=None):
    """`neuron.run`."""
    del parameters
    return neuron.run(self._params, x, state, affine)

  def observe(self, parameters, x, state, affine=None):
    """Membrane potentials, fired levels and window membership."""
    del parameters
    params, current = self._params, x if affine is None else affine(x)

    def body(state, x_t):
      state, _ = neuron.step(params, state, x_t)
      return state, state.membrane_potential

    _, u = jax.lax.scan(body, state, current)
    thresholds = jnp.asarray(params.thresholds, u.dtype)
    z = u - thresholds.reshape((-1,) + (1,) * (u.ndim - 2))[None]
    return Observation(u, z > 0, jnp.abs(z) < self.width / 2)


@UNITS.register('relu')
@dataclasses.dataclass(frozen=True)
class ReLU(SpikingUnit):
  """Rectifier without state: the network without spikes, for comparison."""

  def init_state(self, parameters, shape, dtype):
    """No state."""
    del parameters, shape, dtype
    return ()

  def step(self, parameters, state, x_t):
    """Rectifies the current."""
    del parameters
    return state, nn.relu(x_t)

  def run(self, parameters, x, state, affine=None):
    """Rectifies all timesteps at once."""
    return self.step(parameters, state, x if affine is None else affine(x))


class SpikingUnits(nn.Module):
  """Units over a current whose time is folded into batch.

  They start from the state in the collection `MEMBRANE_POTENTIAL` if it is
  given, else from their initial state. They leave the state after the last
  timestep there, and the one they started from in `INITIAL_STATE`, where these
  collections are mutable.

  Attributes:
    unit: description of the units.
    time_steps: timesteps folded into batch.
    dtype: dtype of the output, in which the next layer computes.

  Raises:
    UserError: the unit is no instance of a spiking unit.
  """

  unit: SpikingUnit
  time_steps: int
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    """Validates the unit."""
    if not isinstance(self.unit, SpikingUnit):
      raise UserError(
        'unit must be an instance, such as layers.LIF(), got '
        f'{self.unit!r}; names are for config.unit.name'
      )
    super().__post_init__()

  def __call__(
    self,
    x: Float[Array, 'folded *shape'],
    affine: Callable[[Array], Array] | None = None,
  ) -> Float[Array, 'folded *shape']:
    """Output for the current `x`, or `affine(x)` if `affine` is given."""
    x, affine = _same_at_all_timesteps(x, affine)
    parameters, current, state = self._prepared(x, affine)
    put_state(self, INITIAL_STATE, state)
    state, y = self.unit.run(parameters, current, state, affine)
    put_state(self, MEMBRANE_POTENTIAL, state)
    return y.reshape(x.shape).astype(self.dtype)

  def observe(
    self,
    x: Float[Array, 'folded *shape'],
    affine: neuron.Affine | None = None,
  ) -> Observation:
    """Inside of the units for the arguments of `__call__`.

    Raises:
      UserError: the units do not offer it.
    """
    observe = getattr(self.unit, 'observe', None)
    if observe is None:
      raise UserError(
        f'{type(self.unit).__name__} has no method observe, which tells the '
        'membranes, fired levels and window membership of a unit; MLF has one'
      )
    x, affine = _same_at_all_timesteps(x, affine)
    return observe(*self._prepared(x, affine), affine)

  @nn.compact
  def _prepared(self, x, affine):
    """Learned parameters, current with a time axis, and state to start from."""
    require_floating(x=x)
    require_folded(x, self.time_steps)
    if affine is not None:
      # Widened here and not in the loop over time: there a compiler may or may
      # not leave out the rounding to a narrow dtype, depending on the number of
      # timesteps.
      x = x.astype(affine.mean.dtype)
    batch = x.shape[0] // self.time_steps
    current = x.reshape((self.time_steps, batch, *x.shape[1:]))
    dtype = neuron.membrane_dtype(x.dtype)
    parameters = {
      name: self.param(name, initialiser, dtype)
      for name, initialiser in self.unit.learned(x.shape[1:]).items()
    }
    if self.has_variable(MEMBRANE_POTENTIAL, 'state'):
      state = self.get_variable(MEMBRANE_POTENTIAL, 'state')
    else:
      state = self.unit.init_state(parameters, current.shape[1:], dtype)
    return parameters, current, state


def _same_at_all_timesteps(x, affine):
  """Applies coefficients that differ between timesteps, which no unit knows."""
  if affine is None or isinstance(affine, neuron.Affine):
    return x, affine
  return affine(x), None


def require_folded(x: Float[Array, 'folded *shape'], time_steps: int) -> None:
  """Raises `UserError` unless the first axis can hold time and batch."""
  if x.shape[0] % time_steps:
    raise UserError(
      f'the first axis of shape {x.shape} must hold time and batch, so a '
      f'multiple of {time_steps} timesteps'
    )


def put_state(module: nn.Module, collection: str, state: Any) -> None:
  """Stores the state of a module if the collection is mutable.

  Every collection is mutable at `init`, which returns no state.
  """
  if not module.is_initializing() and module.is_mutable_collection(collection):
    module.put_variable(collection, 'state', state)
