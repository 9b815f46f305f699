"""The multi-level firing (MLF) neuron as pure functions.

All K levels of a unit receive the same input current `x[t]`; each is a leaky
integrate-and-fire neuron with its own membrane potential, threshold and hard
reset, and the unit's output is the number of levels that fire:

    u_k[t] = decay * u_k[t-1] * (1 - o_k[t-1]) + x[t]
    o_k[t] = 1 if u_k[t] > V_k else 0
    o[t]   = sum over k of o_k[t]

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.1. `step` is the specification; `run` computes the same over a whole
recording, by the recurrence in `mlf_jax.neuron._vjp`.
"""

import dataclasses
import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlf_jax.errors import UserError, require_floating
from mlf_jax.neuron import surrogate as surrogate_lib
from mlf_jax.neuron._timestep import Affine, MultiLevelFiring
from mlf_jax.neuron._vjp import recurrence
from mlf_jax.neuron.compiler_hints import vary_alike


@jax.tree_util.register_pytree_with_keys_class
# Compared by identity: arrays have no single truth value.
@dataclasses.dataclass(frozen=True, eq=False)
class MLFParams:
  """Parameters of an MLF unit, a pytree.

  `thresholds` and `decay` are leaves: they can be traced, learned and mapped
  over. The rest is static. Values are validated at construction where they
  are concrete; a pytree operation never validates.

  Attributes:
    thresholds: [level], positive and strictly increasing.
    decay: scalar in [0, 1]; 1 is the leak-free integrate-and-fire neuron.
    width: width `a` of every level's surrogate window.
    surrogate: one of `mlf_jax.neuron.SURROGATES`.

  Raises:
    UserError: a value outside its range.
  """

  thresholds: Float[Array, 'level'] | tuple[float, ...] = (0.6, 1.6, 2.6)
  decay: Float[Array, ''] | float = 0.25
  width: float = 1.0
  surrogate: str = 'rectangular'

  def __post_init__(self):
    """Turns plain numbers into arrays and validates what is concrete."""
    surrogate_lib.check_window(self.width, self.surrogate)
    for name in ('thresholds', 'decay'):
      value = getattr(self, name)
      if isinstance(value, (tuple, list)) and any(
        isinstance(v, jax.Array) for v in value
      ):
        value = jnp.stack([jnp.asarray(v) for v in value])
      if not isinstance(value, jax.Array):
        try:
          value = np.asarray(value, np.float64)
        except (TypeError, ValueError):
          raise UserError(f'{name} must be numeric, got {value!r}') from None
      object.__setattr__(self, name, value)
    if self.thresholds.ndim != 1 or self.thresholds.size == 0:
      raise UserError(
        'thresholds must be a sequence with one value per level, got shape '
        f'{self.thresholds.shape}'
      )
    if self.decay.ndim != 0:
      raise UserError(f'decay must be one number, got shape {self.decay.shape}')
    if not isinstance(self.thresholds, jax.core.Tracer):
      _check_thresholds(np.asarray(self.thresholds), self.width, self.surrogate)
    if not isinstance(self.decay, jax.core.Tracer) and not (
      0 <= float(self.decay) <= 1
    ):
      raise UserError(f'decay must lie in [0, 1], got {float(self.decay)}')

  @property
  def num_levels(self) -> int:
    """Number of levels K."""
    return self.thresholds.shape[0]

  def tree_flatten_with_keys(self):
    """Returns the leaves with their names, and the static rest."""
    leaves = tuple(
      (jax.tree_util.GetAttrKey(name), getattr(self, name))
      for name in ('thresholds', 'decay')
    )
    return leaves, (self.width, self.surrogate)

  @classmethod
  def tree_unflatten(cls, static, leaves):
    """Inverse of flattening; takes any leaves, as pytree operations need."""
    params = object.__new__(cls)
    values = (*leaves, *static)
    for field, value in zip(dataclasses.fields(cls), values, strict=True):
      object.__setattr__(params, field.name, value)
    return params


def _check_thresholds(thresholds, width, surrogate):
  gaps = np.diff(thresholds)
  if not (np.all(thresholds > 0) and np.all(np.isfinite(thresholds))):
    raise UserError(f'thresholds must be positive, got {thresholds.tolist()}')
  if not np.all(gaps > 0):
    raise UserError(
      f'thresholds must be strictly increasing, got {thresholds.tolist()}'
    )
  if surrogate == 'rectangular' and not np.allclose(gaps, width, rtol=1e-5):
    overlap = np.any(gaps < width * (1 - 1e-5))
    fault = 'overlap' if overlap else 'leave gaps'
    warnings.warn(
      f'the surrogate windows of thresholds {thresholds.tolist()} with width '
      f'{width} {fault}; they tile when the thresholds are one width apart',
      stacklevel=4,
    )


class MLFState(NamedTuple):
  """State that a unit carries from one timestep to the next."""

  # [level, ...]: u_k[t] BEFORE the reset; whether the level fired is
  # recomputed from it.
  membrane_potential: Float[Array, 'level *shape']


def membrane_dtype(dtype) -> jnp.dtype:
  """Dtype of the membranes under a current of `dtype`: float32 or wider."""
  dtype = jnp.dtype(dtype)
  return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def init_state(
  params: MLFParams, shape: tuple[int, ...], dtype=jnp.float32
) -> MLFState:
  """State of units at rest: every membrane potential is 0.

  Args:
    params: parameters of the units.
    shape: shape of the input current at one timestep.
    dtype: floating dtype of the input current; membranes of a current
      narrower than float32 are float32.

  Returns:
    Membrane potentials, [level, *shape].

  Raises:
    UserError: `dtype` is not floating.
  """
  if not jnp.issubdtype(dtype, jnp.floating):
    raise UserError(f'the state of a neuron is floating, not {dtype}')
  shape = (params.num_levels, *shape)
  return MLFState(jnp.zeros(shape, membrane_dtype(dtype)))


def _per_level(thresholds, u):
  """Thresholds in the dtype and rank of the membranes."""
  return thresholds.astype(u.dtype).reshape((-1,) + (1,) * (u.ndim - 1))


def _require_state(params, state, shape, dtype):
  """Raises unless the state is one of these units under such a current."""
  if not isinstance(state, MLFState):
    raise UserError(
      f'the state must be an MLFState, got {type(state).__name__}; the order '
      'is step(params, state, x_t) and run(params, x, state)'
    )
  u = state.membrane_potential
  shape, dtype = (params.num_levels, *shape), membrane_dtype(dtype)
  if u.shape != shape or u.dtype != dtype:
    raise UserError(
      f'the state holds membrane potentials {u.dtype} of shape {u.shape}, but '
      f'this current needs {dtype} of shape {shape}: init_state(params, '
      f'{shape[1:]}, dtype) makes them'
    )


def step(
  params: MLFParams, state: MLFState, x_t: Float[Array, '*shape']
) -> tuple[MLFState, Float[Array, '*shape']]:
  """Advances MLF units by one timestep; the specification, differentiable.

  The reset is differentiated too: the spike inside it carries its surrogate
  gradient. For finite currents; an infinite one leaves NaN behind.

  Args:
    params: parameters of the units.
    state: membrane potentials of the previous timestep, [level, *shape].
    x_t: input current, [*shape], floating.

  Returns:
    The new state, and the number of levels that fire, 0..K, in the shape and
    dtype of `x_t`.

  Raises:
    UserError: the current is not floating, or the state is not one for it.
  """
  x_t = jnp.asarray(x_t)
  require_floating(x_t=x_t)
  _require_state(params, state, x_t.shape, x_t.dtype)
  u = state.membrane_potential
  threshold = _per_level(jnp.asarray(params.thresholds), u)
  fire = functools.partial(
    surrogate_lib.spike,
    threshold=threshold,
    width=params.width,
    surrogate=params.surrogate,
  )
  # The factor 1 - o comes last: it is 0 or 1, so the product is exact and a
  # compiler that contracts product and sum cannot change the result.
  decay = jnp.asarray(params.decay).astype(u.dtype)
  u = decay * u * (1 - fire(u)) + x_t.astype(u.dtype)[None]
  return MLFState(u), fire(u).sum(0).astype(x_t.dtype)


def run(
  params: MLFParams,
  x: Float[Array, 'time *shape'],
  state: MLFState | None = None,
  affine: Affine | None = None,
) -> tuple[MLFState, Float[Array, 'time *shape']]:
  """Runs MLF units over a whole recording: the fast path.

  Values and gradients, with respect to every input, equal those of folding
  `step` over the leading axis. The backward pass keeps only `x` and recomputes
  the membranes.

  Args:
    params: parameters of the units.
    x: input current, [time, *shape], floating, time >= 1.
    state: membrane potentials to start from; None is rest. The final state of
      one call, handed to the next, continues the recording exactly.
    affine: if given, the input current is `affine(x)`; one coefficient per
      entry of the last axis of `x`, in the dtype of the membranes.

  Returns:
    The final state, and the number of levels that fire at each timestep, in
    the shape and dtype of `x`.

  Raises:
    UserError: `x` is not floating or has no time axis, the state or the
      coefficients are not ones for it, or `params` are none.
  """
  if not isinstance(params, MLFParams):
    raise UserError(
      f'params must be MLFParams, got {type(params).__name__}; the order is '
      'run(params, x, state)'
    )
  x = jnp.asarray(x)
  require_floating(x=x)
  if x.ndim > 0 and not isinstance(x.shape[0], int):
    raise UserError(
      f'the number of timesteps must be a fixed number, got {x.shape[0]!s} '
      'of a symbolic shape; other sizes may be symbolic'
    )
  if x.ndim < 1 or x.shape[0] < 1:
    raise UserError(
      f'the current needs a time axis of at least 1, [time, ...]; got {x.shape}'
    )
  if state is None:
    state = init_state(params, x.shape[1:], x.dtype)
  _require_state(params, state, x.shape[1:], x.dtype)
  u = state.membrane_potential
  for name, value in affine._asdict().items() if affine is not None else ():
    if value.shape != x.shape[-1:] or value.dtype != u.dtype:
      raise UserError(
        f'affine.{name} must be {u.dtype} of shape {x.shape[-1:]}, got '
        f'{value.dtype} of shape {value.shape}'
      )
  x, u, affine, thresholds, decay = vary_alike(
    x,
    u,
    affine,
    jnp.asarray(params.thresholds).astype(u.dtype),
    jnp.asarray(params.decay).astype(u.dtype),
  )
  unit = MultiLevelFiring(params.num_levels, params.width, params.surrogate)
  u, spikes = recurrence(unit, x, u, affine, (list(thresholds), decay))
  return MLFState(u), spikes


def mlf(
  x: Float[Array, 'time *shape'],
  thresholds: Float[Array, 'level'] | tuple[float, ...] = MLFParams.thresholds,
  decay: Float[Array, ''] | float = MLFParams.decay,
  width: float = MLFParams.width,
  surrogate: str = MLFParams.surrogate,
) -> Float[Array, 'time *shape']:
  """Spikes of MLF units that start at rest: the one-liner for a model.

  Args:
    x: input current, [time, *shape], floating.
    thresholds: one value per level, positive and increasing.
    decay: scalar in [0, 1].
    width: width of the surrogate windows.
    surrogate: one of `mlf_jax.neuron.SURROGATES`.

  Returns:
    The number of levels that fire, 0..K, in the shape and dtype of `x`.

  Raises:
    UserError: `x` is not floating or has no time axis, or another argument lies
      outside its range.
  """
  return run(MLFParams(thresholds, decay, width, surrogate), x)[1]
