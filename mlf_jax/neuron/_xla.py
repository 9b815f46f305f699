"""The recurrence in XLA: few timesteps written out, more of them in a loop.

Spikes equal those of `neuron.step`, gradients to rounding. The loop goes
backward tile by tile of neurons.
"""

import functools

import jax
import jax.numpy as jnp

from mlf_jax.neuron._timestep import advance, retreat, total
from mlf_jax.neuron._xla_tiles import Tiles
from mlf_jax.neuron.compiler_hints import materialise, on_all_cores

# Most timesteps of which the backward pass is written out: XLA then fuses all
# of them into one pass over memory, and a training step of DS-ResNet-20 for
# CIFAR-10 is 10 % faster than with the loop. Beyond, it recomputes the whole
# chain for every output: at T = 6 the backward pass takes twice as long. With
# gradients of learned values it would write those of every neuron to memory and
# take three times as long as the loop, which sums them tile by tile.
_MOST_UNROLLED_BACKWARD = 5
# Most timesteps of which the forward pass is written out, if the spikes of all
# of them fit into one word per neuron. Several words would make inference of
# DS-ResNet-20 at T = 40 5 % faster, but its compilation 8 times as long.
_MOST_UNROLLED_FORWARD = 16
# Neurons whose membranes at all timesteps fit into the cache of a core.
_TILE = 8192


def forward(unit, x, u, affine, values):
  """Final membrane potentials and spikes.

  Args:
    unit: the `Equations` of the units.
    x: input current, or what `affine` turns into it, [time, ...].
    u: initial membrane potentials, [level, ...].
    affine: coefficients per channel, or None.
    values: of the units, a tree of scalars.
  """
  if not x.size:
    return u, x
  word_dtype = _word_dtype(x.shape[0], unit.output_range())
  if word_dtype is None:
    return _forward_looped(unit, x, u, affine, values)
  return _forward_unrolled(unit, word_dtype, x, u, affine, values)


def backward(unit, learned, x, u, g, d_final, affine, values):
  """Recomputes the membranes and goes back through the timesteps.

  Args:
    unit: as in `forward`.
    learned: True if somebody asks for the cotangent of `values`.
    x: as in `forward`.
    u: as in `forward`.
    g: cotangent of the spikes, [time, ...].
    d_final: cotangent of the final membrane potentials, [level, ...].
    affine: as in `forward`.
    values: as in `forward`.

  Returns:
    Cotangents of the input current, `u` and `values`; the last are zeros where
    they are not `learned`.
  """
  operands = x, u, g, d_final, affine, values
  few = x.shape[0] <= _MOST_UNROLLED_BACKWARD and not learned
  if few or not x.size:
    d_values = jax.tree.map(jnp.zeros_like, values)
    return *_backward_unrolled(unit, *operands), d_values
  looped = functools.partial(_backward_looped, unit)
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
  return [array[k] for k in range(array.shape[0])]


def _bits(output_range):
  """Bits that hold the spikes of a neuron at one timestep."""
  least, most = output_range
  return (most - least).bit_length()


def _word_dtype(num_steps, output_range):
  """Narrowest unsigned dtype for the spikes of a neuron at all timesteps.

  One bit stays unused, so that a word never has its largest value. None if no
  dtype is wide enough, there are too many timesteps to write out or spikes are
  not whole numbers.
  """
  if output_range is None or num_steps > _MOST_UNROLLED_FORWARD:
    return None
  bits = num_steps * _bits(output_range)
  for dtype in (jnp.uint8, jnp.uint16, jnp.uint32):
    if bits < jnp.iinfo(dtype).bits:
      return dtype
  return None


def _forward_unrolled(unit, word_dtype, x, u, affine, values):
  """Forward pass with every timestep written out.

  The spikes of a neuron are packed into one word, which is written to memory
  and then unpacked. As separate outputs, XLA would recompute each timestep from
  t = 0. The loop, which writes and reads the membranes at each timestep, makes
  inference of DS-ResNet-14 for CIFAR10-DVS at T = 10 take 1.08 times as long.
  """
  (least, _), u, word = unit.output_range(), _levels(u), 0
  bits = _bits(unit.output_range())
  for t, x_t in enumerate(x):
    u = advance(unit, values, u, x_t if affine is None else affine(x_t))
    _, spikes = unit.fire_and_reset(values, u)
    word |= (spikes.astype(jnp.int32) - least) << bits * t
  word = materialise(word.astype(word_dtype))
  shifts = bits * jnp.arange(x.shape[0], dtype=jnp.int32)
  shifts = shifts.reshape((-1, *[1] * word.ndim))
  spikes = (word.astype(jnp.int32)[None] >> shifts) & ((1 << bits) - 1)
  return jnp.stack(u), (spikes + least).astype(x.dtype)


def _backward_unrolled(unit, x, u, g, d_final, affine, values):
  """Cotangents of current and `u`, with every timestep written out."""
  trace = [_levels(u)]
  for x_t in x if affine is None else affine(x):
    trace.append(advance(unit, values, trace[-1], x_t))
  d = [jnp.zeros_like(u_k) for u_k in trace[0]]
  # No later timestep resets the final state: its cotangent is added as it is.
  d_last, d_current = _levels(d_final), []
  for t in reversed(range(len(trace))):
    # No spikes are emitted from the initial state.
    g_t = g[t - 1].astype(u.dtype) if t else jnp.zeros_like(u[0])
    d, _ = retreat(unit, values, trace[t], g_t, d)
    if d_last:
      d, d_last = _add_trees(d, d_last), None
    d_current.append(total(d))
  return jnp.stack(d_current[-2::-1]), jnp.stack(d)


_add_trees = functools.partial(jax.tree.map, jnp.add)


def _blank(shape, dtype, x):
  """Zeros for a loop to fill.

  They depend on `x`: XLA would otherwise make one array of zeros for all loops
  and copy it for each.
  """
  zero = (
    (x.reshape(-1)[0] * 0).astype(dtype) if x.size else jnp.zeros((), dtype)
  )
  return jnp.broadcast_to(zero, shape)


def _forward_looped(unit, x, u, affine, values):
  """Forward pass as a loop over timesteps.

  Spikes overwrite the input that they come from. A separate array would have to
  be filled with zeros first, 6 % of the time of inference of DS-ResNet-20 for
  DVS-Gesture at T = 40.
  """
  tiles = Tiles(x, affine, None)

  def advance_all(t, carry):
    u, array = carry
    t = on_all_cores(t)
    current = tiles.current(array, 0, tiles.length)(t)
    u = advance(unit, values, u, current)
    _, spikes = unit.fire_and_reset(values, u)
    return u, tiles.write(array, spikes, t, 0)

  carry = _levels(tiles.view(u)), tiles.view(x)
  final, spikes = jax.lax.fori_loop(0, x.shape[0], advance_all, carry)
  return jnp.stack(final).reshape(u.shape), spikes.reshape(x.shape)


def _backward_looped(unit, tile, x, u, g, d_final, affine, values):
  """`backward` as loops over timesteps, tile by tile of neurons.

  The membranes of a tile stay in the cache of a core instead of travelling to
  memory and back. A `tile` of None holds all neurons.
  """
  tiles = Tiles(x, affine, tile)
  last, levels = x.shape[0] - 1, range(u.shape[0])
  xs, us, gs, d_finals = map(tiles.view, (x, u, g, d_final))

  def one_tile(start, size, carry):
    traces, d_x, d_u, d_values = carry
    current = tiles.current(xs, start, size)
    read = lambda array, t: tiles.read(array, t, start, size)

    def advance_tile(t, carry):
      u_t, traces = carry
      t = on_all_cores(t)
      u_t = advance(unit, values, u_t, current(t))
      return u_t, [tiles.write(traces[k], u_t[k], t, 0) for k in levels]

    def retreat_tile(i, carry):
      d_x, d, sums = carry
      t = last - 1 - on_all_cores(i)
      u_t = [tiles.read(traces[k], t, 0, size) for k in levels]
      g_t = read(gs, t).astype(u.dtype)
      d, contributions = retreat(unit, values, u_t, g_t, d)
      return (
        tiles.write(d_x, total(d), t, start),
        d,
        _add_trees(sums, contributions),
      )

    zero = jnp.zeros_like(read(us, 0))
    u_0 = [read(us, k) for k in levels]
    carry = advance_tile(0, (u_0, traces))
    u_t, traces = jax.lax.fori_loop(1, last + 1, advance_tile, carry)
    # No later timestep resets the last one.
    g_t = read(gs, last).astype(u.dtype)
    d, sums = retreat(unit, values, u_t, g_t, [zero for _ in levels])
    d = [d[k] + read(d_finals, k) for k in levels]
    d_x = tiles.write(d_x, total(d), last, start)
    d_x, d, sums = jax.lax.fori_loop(0, last, retreat_tile, (d_x, d, sums))
    # No spikes are emitted from the initial state.
    d, contributions = retreat(unit, values, u_0, zero, d)
    for k in levels:
      d_u = tiles.write(d_u, d[k], k, start)
    sums = jax.tree.map(jnp.sum, _add_trees(sums, contributions))
    return traces, d_x, d_u, _add_trees(d_values, sums)

  trace = (x.shape[0], *tiles.largest_tile)
  _, d_x, d_u, d_values = tiles.for_each_tile(
    one_tile,
    (
      [_blank(trace, u.dtype, d_k) for d_k in _levels(d_finals)],
      _blank(xs.shape, x.dtype if affine is None else u.dtype, g),
      _blank(us.shape, u.dtype, g),
      jax.tree.map(jnp.zeros_like, values),
    ),
  )
  return d_x.reshape(x.shape), d_u.reshape(u.shape), d_values
