"""The recursion of an MLF unit over a whole recording, forward and backward.

What `neuron.step` says, computed fast: the same spikes and, to rounding, the
same gradients. Few timesteps are written out and fused; more of them run in a
loop, which goes backward tile by tile of neurons. Where `gpu` has kernels for
the device, those run instead.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax import surrogate as surrogate_lib
from mlf_jax.equations import Affine, advance, fired, retreat, total
from mlf_jax.rows import Rows
from mlf_jax.settle import settle

# Up to here the backward pass is written out: XLA then fuses all timesteps into
# one pass over memory. Beyond, it recomputes the whole chain for every output:
# at T = 8 the backward pass takes 290 ms instead of 46 for 10 million values.
_UNROLL_LIMIT = 6
# Up to here the forward pass is, if the spikes of all timesteps fit into a word
# a neuron. More words would save 5 % of inference of DS-ResNet-20 at T = 40,
# but have it compile in 25 s instead of 3.
_WORD_LIMIT = 16
# Neurons whose membranes of all timesteps fit into the cache of a core.
_TILE = 8192


def _levels(array):
  """The levels of an array, [level, ...], one by one.

  Apart, they fuse into one pass over memory; along an axis, their sum does not
  vectorise, which made the backward pass 4 to 9 times slower at K = 3.
  """
  return tuple(array[k] for k in range(array.shape[0]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run(
  width: float,
  surrogate: str,
  x: Float[Array, 'time *shape'],
  u: Float[Array, 'level *shape'],
  affine: Affine | None,
  thresholds: Float[Array, 'level'],
  decay: Float[Array, ''],
) -> tuple[Float[Array, 'level *shape'], Float[Array, 'time *shape']]:
  """The recursion; see `neuron.run`, which checks what it is given.

  Args:
    width: width of the surrogate windows.
    surrogate: one of `mlf_jax.surrogate.SURROGATES`.
    x: input current, or what `affine` makes it from.
    u: initial membrane potentials.
    affine: coefficients of a channel, in the dtype of the membranes.
    thresholds: in the dtype of the membranes.
    decay: in the dtype of the membranes.

  Returns:
    Final membrane potentials, and spikes in the dtype of `x`.
  """
  del width, surrogate
  # No neuron, no spike; and no row to cut out.
  if not x.size:
    return u, x
  forward = _forward_looped
  word_dtype = _word_dtype(x.shape[0], u.shape[0])
  if word_dtype is not None:
    forward = functools.partial(_forward_unrolled, word_dtype)
  return _unless_on_gpu(
    forward, lambda gpu: gpu.forward, x, u, affine, thresholds, decay
  )


def _run_fwd(width, surrogate, *operands):
  return run(width, surrogate, *operands), operands


def _run_bwd(width, surrogate, residuals, cotangents):
  x, u, affine, thresholds, decay = residuals
  later, g = cotangents
  window = functools.partial(
    surrogate_lib.derivative, width=width, surrogate=surrogate
  )
  backward = functools.partial(_backward_of_platform, window)
  # A tile of no neurons cannot be cut out.
  if x.shape[0] <= _UNROLL_LIMIT or not x.size:
    backward = functools.partial(_backward_unrolled, window)
  d_current, d_u, d_thresholds, d_decay = _unless_on_gpu(
    backward,
    lambda gpu: functools.partial(gpu.backward, width, surrogate),
    x,
    u,
    g,
    later,
    affine,
    thresholds,
    decay,
  )
  if affine is None:
    return d_current.astype(x.dtype), d_u, None, d_thresholds, d_decay
  pull = jax.vjp(lambda x, affine: affine(x), x, affine)[1]
  d_x, d_affine = pull(d_current)
  return d_x, d_u, d_affine, d_thresholds, d_decay


run.defvjp(_run_fwd, _run_bwd)


def _unless_on_gpu(function, kernel_of, x, u, *operands):
  """`function(x, u, *operands)`, or a kernel for GPUs in its place.

  Args:
    function: what to run elsewhere.
    kernel_of: function of the module `gpu`, which is imported where there is a
      GPU alone: Pallas would add a sixth to the time of `import mlf_jax`.
    x: input current, or what `affine` makes it from, [time, ...].
    u: initial membrane potentials, [level, ...].
    *operands: the others.
  """
  if not (x.size and _has_gpu()):
    return function(x, u, *operands)
  from mlf_jax import gpu

  if not gpu.can_index(x, u):
    return function(x, u, *operands)
  return jax.lax.platform_dependent(
    x, u, *operands, cuda=kernel_of(gpu), default=function
  )


def _has_gpu():
  """Whether there is a GPU for the kernels."""
  if jax.default_backend() != 'gpu':
    return False
  capability = getattr(jax.local_devices()[0], 'compute_capability', '')
  major, _, minor = str(capability).partition('.')
  # What their compiler asks for. Other makers have names, not numbers.
  return major.isdigit() and minor.isdigit() and int(major) >= 8


def _word_dtype(num_steps, num_levels):
  """The narrowest dtype for the spikes of a neuron at all timesteps.

  With a bit to spare, so that it never holds its largest value; None if there
  is none, or if there are too many timesteps to write out.
  """
  if num_steps > _WORD_LIMIT:
    return None
  bits = num_steps * num_levels.bit_length()
  for dtype in (jnp.uint8, jnp.uint16, jnp.uint32):
    if bits < jnp.iinfo(dtype).bits:
      return dtype
  return None


def _forward_unrolled(word_dtype, x, u, affine, thresholds, decay):
  """Final membrane potentials and spikes, every timestep written out.

  The spikes of a neuron go into one word, which is written to memory and taken
  apart after. As an output each, every timestep would be computed from the
  first one on. The loop, which writes and reads the membranes at each timestep,
  made inference of DS-ResNet-14 for CIFAR10-DVS, T = 10, take 1.08 times as
  long.
  """
  thresholds, u = _levels(thresholds), _levels(u)
  bits = len(thresholds).bit_length()
  word = 0
  for t, x_t in enumerate(x):
    current = x_t if affine is None else affine(x_t)
    u = [
      advance(v, decay, u_k, current)
      for v, u_k in zip(thresholds, u, strict=True)
    ]
    word |= fired(thresholds, u, jnp.int32) << bits * t
  word = settle(word.astype(word_dtype))
  shifts = bits * jnp.arange(x.shape[0], dtype=jnp.int32)
  shifts = shifts.reshape((-1, *[1] * word.ndim))
  spikes = (word.astype(jnp.int32)[None] >> shifts) & ((1 << bits) - 1)
  return jnp.stack(u), spikes.astype(x.dtype)


def _backward_unrolled(window, x, u, g, later, affine, thresholds, decay):
  """Recomputes the membranes and goes back, every timestep written out.

  Args:
    window: surrogate derivative.
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
  current = x if affine is None else affine(x)
  d_current = [0] * current.shape[0]
  d_u, d_thresholds, d_decay = [], [], 0
  for v, u_k, d in zip(*map(_levels, (thresholds, u, later)), strict=True):
    trace = [u_k]
    for x_t in current:
      trace.append(advance(v, decay, trace[-1], x_t))
    d_threshold = 0
    # Of the final state, which no later timestep resets.
    d_next, d_last = jnp.zeros_like(d), d
    for t in reversed(range(len(trace))):
      g_t = g[t - 1].astype(d.dtype) if t else 0
      d_next, d_v, d_decay_t = retreat(window, v, decay, trace[t], g_t, d_next)
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
  """Final membrane potentials and spikes, one timestep after the other.

  Spikes take the place of the input they come from: an array of their own would
  have to be filled with zeros first, which took 6 % of the time of inference of
  DS-ResNet-20 for DVS-Gesture, T = 40.
  """
  rows = Rows(x, affine, None)
  thresholds = _levels(thresholds)

  def forward(t, carry):
    u, array = carry
    current = rows.current(array, 0, rows.length)(t)
    u = [
      advance(v, decay, u_k, current)
      for v, u_k in zip(thresholds, u, strict=True)
    ]
    spikes = fired(thresholds, u, x.dtype)
    return u, rows.write(array, spikes, t, 0)

  carry = list(_levels(rows.view(u))), rows.view(x)
  final, spikes = jax.lax.fori_loop(0, x.shape[0], forward, carry)
  return jnp.stack(final).reshape(u.shape), spikes.reshape(x.shape)


def _backward_of_platform(window, *operands):
  """`_backward_looped`, in tiles where a core has a cache of its own."""
  looped = functools.partial(_backward_looped, window)
  return jax.lax.platform_dependent(
    *operands,
    cpu=functools.partial(looped, _TILE),
    default=functools.partial(looped, None),
  )


def _backward_looped(window, tile, x, u, g, later, affine, thresholds, decay):
  """The same as `_backward_unrolled`, tile by tile of neurons.

  The membranes of a tile stay in the cache of a core instead of travelling to
  memory and back.

  A `tile` of None is all neurons in one.
  """
  rows = Rows(x, affine, tile)
  num_steps, num_levels = x.shape[0], thresholds.shape[0]
  levels = range(num_levels)
  v = _levels(thresholds)
  xs, us, gs, laters = map(rows.view, (x, u, g, later))

  def back(u_t, g_t, d_next, d_thresholds, d_decay):
    steps = [
      retreat(window, v[k], decay, u_t[k], g_t, d_next[k]) for k in levels
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
      u_t = [advance(v[k], decay, u_t[k], i) for k in levels]
      return u_t, [rows.write(traces[k], u_t[k], t, 0) for k in levels]

    def backward(i, carry):
      d_x, *carry = carry
      t = num_steps - 2 - i
      u_t = [rows.read(traces[k], t, 0, size) for k in levels]
      d, *carry = back(u_t, read(gs, t).astype(u.dtype), *carry)
      return rows.write(d_x, total(d), t, start), d, *carry

    zero = jnp.zeros_like(read(us, 0))
    u_0 = [read(us, k) for k in levels]
    carry = forward(0, (u_0, traces))
    u_t, traces = jax.lax.fori_loop(1, num_steps, forward, carry)
    # The last timestep, which no later one resets.
    last = num_steps - 1
    nothing = [zero] * num_levels
    d, *sums = back(u_t, read(gs, last).astype(u.dtype), nothing, nothing, zero)
    d = [d[k] + read(laters, k) for k in levels]
    d_x = rows.write(d_x, total(d), last, start)
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
