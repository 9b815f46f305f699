"""The multi-level firing (MLF) neuron as pure functions.

All K levels of a unit receive the same input current `x[t]`; each is a leaky
integrate-and-fire neuron with its own membrane potential, threshold and hard
reset, and the unit's output is the number of levels that fire:

    u_k[t] = decay * u_k[t-1] * (1 - o_k[t-1]) + x[t]
    o_k[t] = 1 if u_k[t] > V_k else 0
    o[t]   = sum over k of o_k[t]

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.1. `step` is the specification; `run` is the same over a whole
recording, with a backward pass of its own.
"""

import dataclasses
import functools
import warnings
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlf_jax import surrogate as surrogate_lib
from mlf_jax.errors import UserError

# Up to here the loop over time is unrolled: XLA then fuses all timesteps into
# one pass over memory. Beyond, it recomputes the whole chain for every output:
# at T = 8 the backward pass takes 290 ms instead of 46 for 10 million values.
_UNROLL_LIMIT = 6
# Neurons whose membranes of all timesteps fit into the cache of a core.
_TILE = 8192
# Columns of a row that a loop over timesteps deals with at a time.
_COLUMNS = 512


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
    surrogate: one of `mlf_jax.surrogate.SURROGATES`.

  Raises:
    UserError: a value outside its range.
  """

  thresholds: Float[Array, 'level'] | tuple[float, ...] = (0.6, 1.6, 2.6)
  decay: Float[Array, ''] | float = 0.25
  width: float = 1.0
  surrogate: str = 'rectangular'

  def __post_init__(self):
    """Turns plain numbers into arrays and validates what is concrete."""
    surrogate_lib.check(self.width, self.surrogate)
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
        'thresholds must be a sequence with one value a level, got shape '
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
    """Leaves with their names, and the static rest."""
    leaves = tuple(
      (jax.tree_util.GetAttrKey(name), getattr(self, name))
      for name in ('thresholds', 'decay')
    )
    return leaves, (self.width, self.surrogate)

  @classmethod
  def tree_unflatten(cls, static, leaves):
    """The inverse; takes any leaves, as pytree operations require."""
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
  """What a unit carries from one timestep to the next."""

  # [level, ...]: u_k[t] BEFORE the reset; whether the level fired is
  # recomputed from it.
  membrane_potential: Float[Array, 'level *shape']


class Affine(NamedTuple):
  """What normalisation does to a channel: (x - mean) * scale + bias.

  `run` can apply it itself, so that the current is never written to memory.
  """

  mean: Float[Array, 'channel']
  scale: Float[Array, 'channel']
  bias: Float[Array, 'channel']

  def __call__(self, x: Float[Array, '*batch channel']):
    """Applies it to `x`, in the dtype of the coefficients."""
    lead = tuple(range(x.ndim - self.mean.ndim))
    mean, scale, bias = (jnp.expand_dims(a, lead) for a in self)
    return (x.astype(mean.dtype) - mean) * scale + bias


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
  """
  if not jnp.issubdtype(dtype, jnp.floating):
    raise UserError(f'the state of a neuron is floating, not {dtype}')
  shape = (params.num_levels, *shape)
  return MLFState(jnp.zeros(shape, membrane_dtype(dtype)))


def _per_level(thresholds, u):
  """Thresholds in the dtype and rank of the membranes."""
  return thresholds.astype(u.dtype).reshape((-1,) + (1,) * (u.ndim - 1))


def _assert_state(params, state, shape, dtype):
  chex.assert_rank(params.thresholds, 1)
  chex.assert_rank(params.decay, 0)
  chex.assert_shape(state.membrane_potential, (params.num_levels, *shape))
  chex.assert_type(state.membrane_potential, membrane_dtype(dtype))


def step(
  params: MLFParams, state: MLFState, x_t: Float[Array, '*shape']
) -> tuple[MLFState, Float[Array, '*shape']]:
  """One timestep of MLF units; the specification, differentiable.

  The reset is differentiated too: the spike inside it carries its surrogate
  gradient. For finite currents; an infinite one leaves NaN behind.

  Args:
    params: parameters of the units.
    state: membrane potentials of the previous timestep, [level, *shape].
    x_t: input current, [*shape], floating.

  Returns:
    The new state and the number of levels that fire, 0..K, in the shape and
    dtype of `x_t`.
  """
  x_t = jnp.asarray(x_t)
  chex.assert_type(x_t, float)
  _assert_state(params, state, x_t.shape, x_t.dtype)
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
  """MLF units over a whole recording: the fast path.

  Equal to folding `step` over the leading axis, and so is its gradient, with
  respect to everything. The backward pass keeps `x` alone and recomputes the
  membranes.

  Args:
    params: parameters of the units.
    x: input current, [time, *shape], floating, time >= 1.
    state: membrane potentials to start from; None is rest. The final state of
      one call, handed to the next, continues the recording exactly.
    affine: if given, the input current is `affine(x)`, its coefficients of the
      last axis of `x` and in the dtype of the membranes.

  Returns:
    The final state, and the number of levels that fire at each timestep, in
    the shape and dtype of `x`.
  """
  x = jnp.asarray(x)
  chex.assert_type(x, float)
  if x.ndim < 1 or x.shape[0] < 1:
    raise UserError(
      f'the current needs a time axis of at least 1, [time, ...]; got {x.shape}'
    )
  if state is None:
    state = init_state(params, x.shape[1:], x.dtype)
  _assert_state(params, state, x.shape[1:], x.dtype)
  u = state.membrane_potential
  if affine is not None:
    chex.assert_shape(tuple(affine), x.shape[-1:])
    chex.assert_type(tuple(affine), u.dtype)
  x, u, affine, threshold, decay = _vary_alike(
    x,
    u,
    affine,
    jnp.asarray(params.thresholds).astype(u.dtype),
    jnp.asarray(params.decay).astype(u.dtype),
  )
  u, spikes = _run(
    params.width, params.surrogate, x, u, affine, threshold, decay
  )
  return MLFState(u), spikes


def _vary_alike(*trees):
  """Marks arrays as varying over the mesh axes that any of them varies over.

  Inside `shard_map` a loop's carry and a custom backward pass must vary over
  the same axes as what flows into them. Elsewhere nothing happens.
  """
  varying = lambda a: jax.typeof(a).manual_axis_type.varying
  union = frozenset().union(*map(varying, jax.tree.leaves(trees)))
  return jax.tree.map(
    lambda a: jax.lax.pcast(a, tuple(union - varying(a)), to='varying'), trees
  )


def _levels(array):
  """The levels of an array, [level, ...], one by one.

  Apart, they fuse into one pass over memory; along an axis, their sum does not
  vectorise, which made the backward pass 4 to 9 times slower at K = 3.
  """
  return tuple(array[k] for k in range(array.shape[0]))


def _advance(threshold, decay, u, x_t):
  """Membrane potential one timestep on, from that before the reset."""
  return jnp.where(u > threshold, 0, decay * u) + x_t.astype(u.dtype)


def _retreat(window, threshold, decay, u, g, d_next):
  """One level one timestep back, with the reset path.

  With g[t] = dL/do[t], h_k the surrogate derivative and d_k[t] = dL/du_k[t]:

      d_k[t] = h_k(u_k[t]) (g[t] - decay d_k[t+1] u_k[t])
               + decay d_k[t+1] (1 - o_k[t])

  Args:
    window: h_k, of the distance to the threshold.
    threshold: V_k.
    decay: decay of the membrane potential.
    u: u_k[t].
    g: g[t].
    d_next: d_k[t+1].

  Returns:
    d_k[t]; what this timestep adds to dL/dV_k; and to dL/d(decay).
  """
  h = window(u - threshold)
  quiet = u <= threshold
  direct = h * g
  through_reset = -d_next * decay * u * h
  d = direct + (d_next * decay * quiet.astype(u.dtype) + through_reset)
  through_spike = direct + through_reset
  return d, -through_spike, jnp.where(quiet, d_next * u, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(width, surrogate, x, u, affine, thresholds, decay):
  del width, surrogate
  if x.shape[0] <= _UNROLL_LIMIT:
    return _forward_unrolled(x, u, affine, thresholds, decay)
  return _forward_looped(x, u, affine, thresholds, decay)


def _run_fwd(width, surrogate, *operands):
  return _run(width, surrogate, *operands), operands


def _run_bwd(width, surrogate, residuals, cotangents):
  x, u, affine, thresholds, decay = residuals
  later, g = cotangents
  window = functools.partial(
    surrogate_lib.derivative, width=width, surrogate=surrogate
  )
  if x.shape[0] <= _UNROLL_LIMIT:
    d_current, d_u, d_thresholds, d_decay = _backward_unrolled(
      window, x if affine is None else affine(x), u, g, later, thresholds, decay
    )
  else:
    d_current, d_u, d_thresholds, d_decay = jax.lax.platform_dependent(
      x,
      u,
      g,
      later,
      affine,
      thresholds,
      decay,
      cpu=functools.partial(_backward_looped, window, _TILE),
      default=functools.partial(_backward_looped, window, None),
    )
  if affine is None:
    return d_current.astype(x.dtype), d_u, None, d_thresholds, d_decay
  pull = jax.vjp(lambda x, affine: affine(x), x, affine)[1]
  d_x, d_affine = pull(d_current)
  return d_x, d_u, d_affine, d_thresholds, d_decay


_run.defvjp(_run_fwd, _run_bwd)


def _sum(arrays):
  return functools.reduce(jnp.add, arrays)


def _fired(thresholds, u, dtype):
  """Number of levels that fire."""
  return _sum(
    (u_k > v).astype(dtype) for v, u_k in zip(thresholds, u, strict=True)
  )


def _forward_unrolled(x, u, affine, thresholds, decay):
  """Final membrane potentials and spikes, every timestep written out."""
  thresholds, u = _levels(thresholds), _levels(u)
  spikes = []
  for x_t in x:
    current = x_t if affine is None else affine(x_t)
    u = [
      _advance(v, decay, u_k, current)
      for v, u_k in zip(thresholds, u, strict=True)
    ]
    spikes.append(_fired(thresholds, u, x.dtype))
  return jnp.stack(u), jnp.stack(spikes)


def _backward_unrolled(window, current, u, g, later, thresholds, decay):
  """Recomputes the membranes and goes back, every timestep written out.

  Args:
    window: surrogate derivative.
    current: input current, [time, ...].
    u: initial membrane potentials, [level, ...].
    g: cotangent of the spikes, [time, ...].
    later: cotangent of the final membrane potentials, [level, ...].
    thresholds: [level].
    decay: scalar.

  Returns:
    Cotangents of `current`, `u`, `thresholds` and `decay`.
  """
  d_current = [0] * current.shape[0]
  d_u, d_thresholds, d_decay = [], [], 0
  for v, u_k, d in zip(*map(_levels, (thresholds, u, later)), strict=True):
    trace = [u_k]
    for x_t in current:
      trace.append(_advance(v, decay, trace[-1], x_t))
    d_threshold = 0
    # Of the final state, which no later timestep resets.
    d_next, d_last = jnp.zeros_like(d), d
    for t in reversed(range(len(trace))):
      g_t = g[t - 1].astype(d.dtype) if t else 0
      d_next, d_v, d_decay_t = _retreat(window, v, decay, trace[t], g_t, d_next)
      d_next, d_last = d_next + d_last, 0
      d_threshold += d_v
      d_decay += d_decay_t
      if t:
        d_current[t - 1] += d_next
    d_u.append(d_next)
    d_thresholds.append(d_threshold.sum())
  return (
    jnp.stack(d_current),
    jnp.stack(d_u),
    jnp.stack(d_thresholds),
    d_decay.sum(),
  )


class _Rows:
  """Arrays [time, ...] as [time, row, column], for loops over timesteps.

  XLA vectorises such a loop along the columns, which therefore are many: as
  many channels side by side as fit into `_COLUMNS`, or, where no coefficients
  repeat with the channels, all neurons.
  """

  def __init__(self, x, affine, tile):
    """The layout of an input `x` whose current is `affine(x)`.

    Args:
      x: [time, ..., channel].
      affine: coefficients of a channel, or None.
      tile: neurons that are dealt with at a time; None for all.
    """
    num_neurons = x[0].size
    channels = 1 if affine is None else x.shape[-1]
    pixels = num_neurons // channels
    most = max(1, _COLUMNS // channels)
    columns = channels * max(n for n in range(1, most + 1) if pixels % n == 0)
    if columns < _COLUMNS // 8:
      columns = num_neurons
    self._shape = (num_neurons // columns, columns)
    # The axis that tiles divide.
    self._axis = 0 if columns < num_neurons else 1
    per_step = columns if columns < num_neurons else 1
    self._length = self._shape[self._axis]
    self._tile = self._length
    if tile is not None:
      self._tile = min(max(1, tile // per_step), self._length)
    self._affine = None
    if affine is not None:
      repeats = columns // channels
      self._affine = jax.tree.map(lambda a: jnp.tile(a, repeats), affine)

  def view(self, array):
    """[n, ...] as [n, row, column]."""
    return array.reshape(array.shape[0], *self._shape)

  def tile_shape(self, size):
    """[row, column] of a tile."""
    return (size, self._shape[1]) if self._axis == 0 else (1, size)

  @property
  def largest_tile(self):
    """[row, column] of a whole tile."""
    return self.tile_shape(self._tile)

  def read(self, array, t, start, size):
    """A tile of a timestep, [row, column]."""
    index = (t, start, 0) if self._axis == 0 else (t, 0, start)
    shape = (1, *self.tile_shape(size))
    return jax.lax.dynamic_slice(array, index, shape)[0]

  def write(self, array, tile, t, start):
    """Puts a tile of a timestep into an array."""
    index = (t, start, 0) if self._axis == 0 else (t, 0, start)
    return jax.lax.dynamic_update_slice(
      array, tile[None].astype(array.dtype), index
    )

  def current(self, x, start, size):
    """The input current of a tile, a function of the timestep."""
    affine = self._affine
    if affine is None:
      return lambda t: self.read(x, t, start, size)
    if self._axis == 1:
      affine = jax.tree.map(
        lambda a: jax.lax.dynamic_slice(a, (start,), (size,)), affine
      )
    return lambda t: affine(self.read(x, t, start, size))

  def for_each_tile(self, body, carry):
    """Folds `body(start, size, carry)` over the tiles."""
    whole, rest = divmod(self._length, max(1, self._tile))
    carry = jax.lax.fori_loop(
      0, whole, lambda i, c: body(i * self._tile, self._tile, c), carry
    )
    return body(whole * self._tile, rest, carry) if rest else carry


def _blank(shape, dtype, x):
  """An array to be filled, zero.

  It depends on `x`: XLA would give all loops one array of zeros and copy it
  for each.
  """
  zero = (
    (x.reshape(-1)[0] * 0).astype(dtype) if x.size else jnp.zeros((), dtype)
  )
  return jnp.broadcast_to(zero, shape)


def _forward_looped(x, u, affine, thresholds, decay):
  """Final membrane potentials and spikes, one timestep after the other."""
  rows = _Rows(x, affine, None)
  thresholds = _levels(thresholds)
  views = rows.view(x)
  initial = rows.view(u)

  def one_tile(start, size, carry):
    final, spikes = carry
    current = rows.current(views, start, size)

    def forward(t, carry):
      u, spikes = carry
      i = current(t)
      u = [
        _advance(v, decay, u_k, i) for v, u_k in zip(thresholds, u, strict=True)
      ]
      fired = _fired(thresholds, u, x.dtype)
      return u, rows.write(spikes, fired, t, start)

    u = [rows.read(initial, k, start, size) for k in range(len(thresholds))]
    # The first timestep apart: zeros would be copied into the loop.
    carry = forward(0, (u, spikes))
    u, spikes = jax.lax.fori_loop(1, x.shape[0], forward, carry)
    for k, u_k in enumerate(u):
      final = rows.write(final, u_k, k, start)
    return final, spikes

  final, spikes = rows.for_each_tile(
    one_tile,
    (_blank(initial.shape, u.dtype, x), _blank(views.shape, x.dtype, x)),
  )
  return final.reshape(u.shape), spikes.reshape(x.shape)


def _backward_looped(window, tile, x, u, g, later, affine, thresholds, decay):
  """The same as `_backward_unrolled`, tile by tile of neurons.

  The membranes of a tile stay in the cache of a core instead of travelling to
  memory and back.

  Args:
    window: surrogate derivative.
    tile: neurons in a tile; None for all in one.
    x: input current, or what `affine` makes it from, [time, ...].
    u: initial membrane potentials, [level, ...].
    g: cotangent of the spikes, [time, ...].
    later: cotangent of the final membrane potentials, [level, ...].
    affine: coefficients of a channel, or None.
    thresholds: [level].
    decay: scalar.

  Returns:
    Cotangents of the input current, `u`, `thresholds` and `decay`.
  """
  rows = _Rows(x, affine, tile)
  num_steps, num_levels = x.shape[0], thresholds.shape[0]
  levels = range(num_levels)
  v = _levels(thresholds)
  xs, us, gs, laters = map(rows.view, (x, u, g, later))

  def back(u_t, g_t, d_next, d_thresholds, d_decay):
    steps = [
      _retreat(window, v[k], decay, u_t[k], g_t, d_next[k]) for k in levels
    ]
    d, d_v, d_decays = zip(*steps, strict=True)
    d_thresholds = [d_thresholds[k] + d_v[k] for k in levels]
    return list(d), d_thresholds, sum(d_decays, d_decay)

  def one_tile(start, size, carry):
    traces, d_x, d_u, d_thresholds, d_decay = carry
    current = rows.current(xs, start, size)
    read = lambda array, t: rows.read(array, t, start, size)

    def forward(t, carry):
      u_t, traces = carry
      i = current(t)
      u_t = [_advance(v[k], decay, u_t[k], i) for k in levels]
      return u_t, [rows.write(traces[k], u_t[k], t, 0) for k in levels]

    def backward(i, carry):
      d_x, *carry = carry
      t = num_steps - 2 - i
      u_t = [rows.read(traces[k], t, 0, size) for k in levels]
      d, *carry = back(u_t, read(gs, t).astype(u.dtype), *carry)
      return rows.write(d_x, _sum(d), t, start), d, *carry

    zero = jnp.zeros_like(read(us, 0))
    u_0 = [read(us, k) for k in levels]
    carry = forward(0, (u_0, traces))
    u_t, traces = jax.lax.fori_loop(1, num_steps, forward, carry)
    # The last timestep, which no later one resets.
    last = num_steps - 1
    nothing = [zero] * num_levels
    d, *sums = back(u_t, read(gs, last).astype(u.dtype), nothing, nothing, zero)
    d = [d[k] + read(laters, k) for k in levels]
    d_x = rows.write(d_x, _sum(d), last, start)
    d_x, d, *sums = jax.lax.fori_loop(0, last, backward, (d_x, d, *sums))
    # The initial state, from which no spikes come.
    d, d_v, d_decays = back(u_0, zero, d, *sums)
    for k in levels:
      d_u = rows.write(d_u, d[k], k, start)
    d_thresholds += jnp.stack([d_k.sum() for d_k in d_v])
    return traces, d_x, d_u, d_thresholds, d_decay + d_decays.sum()

  trace = (num_steps, *rows.largest_tile)
  _, d_x, d_u, d_thresholds, d_decay = rows.for_each_tile(
    one_tile,
    (
      [_blank(trace, u.dtype, g_k) for g_k in _levels(laters)],
      _blank(xs.shape, x.dtype if affine is None else u.dtype, g),
      _blank(us.shape, u.dtype, g),
      jnp.zeros_like(thresholds),
      jnp.zeros_like(decay),
    ),
  )
  return d_x.reshape(x.shape), d_u.reshape(u.shape), d_thresholds, d_decay


def mlf(
  x: Float[Array, 'time *shape'],
  thresholds: Float[Array, 'level'] | tuple[float, ...] = (0.6, 1.6, 2.6),
  decay: Float[Array, ''] | float = 0.25,
  width: float = 1.0,
  surrogate: str = 'rectangular',
) -> Float[Array, 'time *shape']:
  """MLF units at rest, shown a current: the one-liner for a model of yours.

  Args:
    x: input current, [time, *shape], floating.
    thresholds: one value a level, positive and increasing.
    decay: scalar in [0, 1].
    width: width of the surrogate windows.
    surrogate: one of `mlf_jax.surrogate.SURROGATES`.

  Returns:
    The number of levels that fire, 0..K, in the shape and dtype of `x`.
  """
  return run(MLFParams(thresholds, decay, width, surrogate), x)[1]
