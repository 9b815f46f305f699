"""The recurrence in XLA: few timesteps written out, more of them in a loop.

Spikes equal those of `neuron.step`, gradients to rounding. The loop goes
backward tile by tile of neurons.
"""

import functools

import jax
import jax.numpy as jnp

from mlf_jax.neuron._timestep import advance, num_fired, retreat, total
from mlf_jax.neuron._xla_tiles import Tiles
from mlf_jax.neuron.compiler_hints import materialise, on_all_cores

# Most timesteps of which the backward pass is written out: XLA then fuses all
# of them into one pass over memory. Beyond, it recomputes the whole chain for
# every output: at T = 8 the backward pass takes 6 times as long as the loop.
_MOST_UNROLLED_BACKWARD = 6
# Most timesteps of which the forward pass is written out, if the spikes of all
# of them fit into one word per neuron. Several words would make inference of
# DS-ResNet-20 at T = 40 5 % faster, but its compilation 8 times as long.
_MOST_UNROLLED_FORWARD = 16
# Neurons whose membranes at all timesteps fit into the cache of a core.
_TILE = 8192


def forward(x, u, affine, thresholds, decay):
  """Final membrane potentials and spikes; arguments as in `recurrence`."""
  if not x.size:
    return u, x
  word_dtype = _word_dtype(x.shape[0], u.shape[0])
  if word_dtype is None:
    return _forward_looped(x, u, affine, thresholds, decay)
  return _forward_unrolled(word_dtype, x, u, affine, thresholds, decay)


def backward(window, x, u, g, d_final, affine, thresholds, decay):
  """Recomputes the membranes and goes back through the timesteps.

  Args:
    window: surrogate derivative, of the distance to the threshold.
    x: input current, or what `affine` turns into it, [time, ...].
    u: initial membrane potentials, [level, ...].
    g: cotangent of the spikes, [time, ...].
    d_final: cotangent of the final membrane potentials, [level, ...].
    affine: coefficients per channel, or None.
    thresholds: [level].
    decay: scalar.

  Returns:
    Cotangents of the input current, `u`, `thresholds` and `decay`.
  """
  operands = x, u, g, d_final, affine, thresholds, decay
  if x.shape[0] <= _MOST_UNROLLED_BACKWARD or not x.size:
    return _backward_unrolled(window, *operands)
  looped = functools.partial(_backward_looped, window)
  # Only CPUs have a cache per core that a tile can stay in.
  return jax.lax.platform_dependent(
    *operands,
    cpu=functools.partial(looped, _TILE),
    default=functools.partial(looped, None),
  )


def _levels(array):
  """Entries of an array [level, ...] as separate arrays.

  Separate arrays fuse into one pass over memory. A sum along an axis does not
  vectorise: the backward pass took 4 to 9 times as long at K = 3.
  """
  return tuple(array[k] for k in range(array.shape[0]))


def _word_dtype(num_steps, num_levels):
  """Narrowest unsigned dtype for the spikes of a neuron at all timesteps.

  One bit stays unused, so that a word never has its largest value. None if no
  dtype is wide enough or there are too many timesteps to write out.
  """
  if num_steps > _MOST_UNROLLED_FORWARD:
    return None
  bits = num_steps * num_levels.bit_length()
  for dtype in (jnp.uint8, jnp.uint16, jnp.uint32):
    if bits < jnp.iinfo(dtype).bits:
      return dtype
  return None


def _forward_unrolled(word_dtype, x, u, affine, thresholds, decay):
  """Forward pass with every timestep written out.

  The spikes of a neuron are packed into one word, which is written to memory
  and then unpacked. As separate outputs, XLA would recompute each timestep from
  t = 0. The loop, which writes and reads the membranes at each timestep, makes
  inference of DS-ResNet-14 for CIFAR10-DVS at T = 10 take 1.08 times as long.
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
    word |= num_fired(thresholds, u, jnp.int32) << bits * t
  word = materialise(word.astype(word_dtype))
  shifts = bits * jnp.arange(x.shape[0], dtype=jnp.int32)
  shifts = shifts.reshape((-1, *[1] * word.ndim))
  spikes = (word.astype(jnp.int32)[None] >> shifts) & ((1 << bits) - 1)
  return jnp.stack(u), spikes.astype(x.dtype)


def _backward_unrolled(window, x, u, g, d_final, affine, thresholds, decay):
  """`backward` with every timestep written out."""
  current = x if affine is None else affine(x)
  d_current = [0] * current.shape[0]
  d_u, d_thresholds, d_decay = [], [], 0
  for v, u_k, d in zip(*map(_levels, (thresholds, u, d_final)), strict=True):
    trace = [u_k]
    for x_t in current:
      trace.append(advance(v, decay, trace[-1], x_t))
    d_threshold = 0
    # No later timestep resets the final state: its cotangent is added as it is.
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
  """Zeros for a loop to fill.

  They depend on `x`: XLA would otherwise make one array of zeros for all loops
  and copy it for each.
  """
  zero = (
    (x.reshape(-1)[0] * 0).astype(dtype) if x.size else jnp.zeros((), dtype)
  )
  return jnp.broadcast_to(zero, shape)


def _forward_looped(x, u, affine, thresholds, decay):
  """Forward pass as a loop over timesteps.

  Spikes overwrite the input that they come from. A separate array would have to
  be filled with zeros first, 6 % of the time of inference of DS-ResNet-20 for
  DVS-Gesture at T = 40.
  """
  tiles = Tiles(x, affine, None)
  thresholds = _levels(thresholds)

  def advance_all(t, carry):
    u, array = carry
    t = on_all_cores(t)
    current = tiles.current(array, 0, tiles.length)(t)
    u = [
      advance(v, decay, u_k, current)
      for v, u_k in zip(thresholds, u, strict=True)
    ]
    spikes = num_fired(thresholds, u, x.dtype)
    return u, tiles.write(array, spikes, t, 0)

  carry = list(_levels(tiles.view(u))), tiles.view(x)
  final, spikes = jax.lax.fori_loop(0, x.shape[0], advance_all, carry)
  return jnp.stack(final).reshape(u.shape), spikes.reshape(x.shape)


def _backward_looped(window, tile, x, u, g, d_final, affine, thresholds, decay):
  """`backward` as loops over timesteps, tile by tile of neurons.

  The membranes of a tile stay in the cache of a core instead of travelling to
  memory and back. A `tile` of None holds all neurons.
  """
  tiles = Tiles(x, affine, tile)
  num_steps, num_levels = x.shape[0], thresholds.shape[0]
  levels = range(num_levels)
  v = _levels(thresholds)
  xs, us, gs, d_finals = map(tiles.view, (x, u, g, d_final))

  def retreat_all(u_t, g_t, d_next, d_thresholds, d_decay):
    steps = [
      retreat(window, v[k], decay, u_t[k], g_t, d_next[k]) for k in levels
    ]
    d, d_v, d_decays = zip(*steps, strict=True)
    d_thresholds = [d_thresholds[k] + d_v[k] for k in levels]
    return list(d), d_thresholds, sum(d_decays, d_decay)

  def one_tile(start, size, carry):
    traces, d_x, d_u, d_thresholds, d_decay = carry
    current = tiles.current(xs, start, size)
    read = lambda array, t: tiles.read(array, t, start, size)

    def advance_tile(t, carry):
      u_t, traces = carry
      i = current(t)
      u_t = [advance(v[k], decay, u_t[k], i) for k in levels]
      return u_t, [tiles.write(traces[k], u_t[k], t, 0) for k in levels]

    def retreat_tile(i, carry):
      d_x, *carry = carry
      t = num_steps - 2 - i
      u_t = [tiles.read(traces[k], t, 0, size) for k in levels]
      d, *carry = retreat_all(u_t, read(gs, t).astype(u.dtype), *carry)
      return tiles.write(d_x, total(d), t, start), d, *carry

    zero = jnp.zeros_like(read(us, 0))
    u_0 = [read(us, k) for k in levels]
    carry = advance_tile(0, (u_0, traces))
    u_t, traces = jax.lax.fori_loop(1, num_steps, advance_tile, carry)
    # No later timestep resets the last one.
    last = num_steps - 1
    nothing = [zero] * num_levels
    g_t = read(gs, last).astype(u.dtype)
    d, *sums = retreat_all(u_t, g_t, nothing, nothing, zero)
    d = [d[k] + read(d_finals, k) for k in levels]
    d_x = tiles.write(d_x, total(d), last, start)
    d_x, d, *sums = jax.lax.fori_loop(0, last, retreat_tile, (d_x, d, *sums))
    # No spikes are emitted from the initial state.
    d, d_v, d_decays = retreat_all(u_0, zero, d, *sums)
    for k in levels:
      d_u = tiles.write(d_u, d[k], k, start)
    d_thresholds += jnp.stack([d_k.sum() for d_k in d_v])
    return traces, d_x, d_u, d_thresholds, d_decay + d_decays.sum()

  trace = (num_steps, *tiles.largest_tile)
  _, d_x, d_u, d_thresholds, d_decay = tiles.for_each_tile(
    one_tile,
    (
      [_blank(trace, u.dtype, d_k) for d_k in _levels(d_finals)],
      _blank(xs.shape, x.dtype if affine is None else u.dtype, g),
      _blank(us.shape, u.dtype, g),
      jnp.zeros_like(thresholds),
      jnp.zeros_like(decay),
    ),
  )
  return d_x.reshape(x.shape), d_u.reshape(u.shape), d_thresholds, d_decay
