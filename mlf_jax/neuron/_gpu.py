"""The recurrence as two kernels for NVIDIA GPUs, forward and backward.

A thread keeps its neurons from the first timestep to the last, with their
membrane potentials in registers. A loop over timesteps would write and read the
potentials, and start a kernel, at each timestep.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from mlf_jax.neuron._timestep import MultiLevelFiring, advance, retreat

# Timesteps that are written out. More of them run in a loop over segments; the
# backward pass writes the membranes at the start of each segment to memory.
_SEGMENT = 8
# Neurons per block, and warps that share them.
_BLOCK = 256
_WARPS = 4


def can_index(x, u) -> bool:
  """Tells whether 32-bit indices reach every entry of the kernels' arrays.

  Args:
    x: input current, [time, ...].
    u: membrane potentials, [level, ...].
  """
  loops, _ = _segments(x.shape[0])
  return max(x.size, u.size * max(1, loops)) < 2**31


# Jitted, so that layers of one shape are traced once: tracing each of them took
# more than half of the time before the first step of DS-ResNet-20 at T = 40.
@functools.partial(jax.jit, static_argnums=0)
def forward(unit, x, u, affine, values):
  """Final membrane potentials and spikes.

  Args:
    unit: equations of MLF units.
    x: input current, or what `affine` turns into it, [time, ...].
    u: initial membrane potentials, [level, ...].
    affine: coefficients per channel, or None.
    values: thresholds, one per level, and decay.

  Returns:
    Membrane potentials, [level, ...], and spikes in the shape and dtype of `x`.
  """
  thresholds, decay = values
  results = _call(
    functools.partial(_forward_kernel, unit),
    {'x': x, 'u': u},
    (affine, jnp.stack(thresholds), decay[None]),
    {'u': (u.shape[0], u.dtype), 'spikes': (x.shape[0], x.dtype)},
  )
  return results['u'].reshape(u.shape), results['spikes'].reshape(x.shape)


@functools.partial(jax.jit, static_argnums=0)
def backward(unit, x, u, g, d_final, affine, values):
  """Recomputes the membranes and goes back through the timesteps.

  Args:
    unit: as in `forward`.
    x: as in `forward`.
    u: as in `forward`.
    g: cotangent of the spikes, [time, ...].
    d_final: cotangent of the final membrane potentials, [level, ...].
    affine: as in `forward`.
    values: as in `forward`.

  Returns:
    Cotangents of the input current, `u` and `values`.
  """
  thresholds, decay = values
  num_steps, num_levels = x.shape[0], u.shape[0]
  results = {
    'current': (num_steps, x.dtype if affine is None else u.dtype),
    'u': (num_levels, u.dtype),
  }
  loops, _ = _segments(num_steps)
  if loops:
    results['first'] = (loops * num_levels, u.dtype)
  d = _call(
    functools.partial(_backward_kernel, unit),
    {'x': x, 'u': u, 'g': g, 'd_final': d_final},
    (affine, jnp.stack(thresholds), decay[None]),
    results,
    {'thresholds': (num_levels, u.dtype), 'decay': (1, u.dtype)},
  )
  return (
    d['current'].reshape(x.shape),
    d['u'].reshape(u.shape),
    (list(d['thresholds'].sum(1)), d['decay'].sum()),
  )


def _segments(num_steps):
  """Number of segments in the loop, and timesteps of the one after it."""
  loops, rest = divmod(num_steps - 1, _SEGMENT)
  return loops, rest + 1


class _ForwardOnly(NamedTuple):
  """Equations without a custom gradient, which the compiler does not know."""

  unit: MultiLevelFiring

  def fire_and_reset(self, values, u):
    return jax.vjp(self.unit.fire_and_reset, values, u)[0]


def _forward_kernel(unit, block, arrays, coefficients, results):
  affine, thresholds, decay = coefficients
  levels = range(thresholds.shape[0])
  values = [thresholds[k] for k in levels], decay[0]
  unit = _ForwardOnly(unit)
  current = block.current(arrays['x'], affine)

  def segment(start, size, u):
    for t in range(size):
      u = advance(unit, values, u, current(start + t))
      _, spikes = unit.fire_and_reset(values, u)
      block.write(results['spikes'], start + t, spikes)
    return u

  loops, last = _segments(arrays['x'].shape[0])
  u = [block.read(arrays['u'], k) for k in levels]
  u = _repeat(loops, lambda i, u: segment(i * _SEGMENT, _SEGMENT, u), u)
  u = segment(loops * _SEGMENT, last, u)
  for k in levels:
    block.write(results['u'], k, u[k])


def _backward_kernel(unit, block, arrays, coefficients, results):
  affine, thresholds, decay = coefficients
  levels = range(thresholds.shape[0])
  # Level by level: fewer potentials are in registers at a time.
  values = [([thresholds[k]], decay[0]) for k in levels]
  forward = _ForwardOnly(unit)
  current = block.current(arrays['x'], affine)
  read = lambda name, k: block.read(arrays[name], k)

  def advance_level(k, u_k, x_t):
    return advance(forward, values[k], [u_k], x_t)[0]

  def retreat_level(k, u_k, g_t, d_k):
    (d,), ((d_v,), d_decay) = retreat(unit, values[k], [u_k], g_t, [d_k])
    return d, d_v, d_decay

  def advance_segment(i, u):
    for k in levels:
      block.write(results['first'], i * len(levels) + k, u[k])
    for t in range(_SEGMENT):
      x_t = current(i * _SEGMENT + t)
      u = [advance_level(k, u[k], x_t) for k in levels]
    return u

  def retreat_segment(start, size, u, carry, d_final=None):
    d_next, d_thresholds, d_decay = map(list, carry)
    x = [current(start + t) for t in range(size)]
    g = [read('g', start + t).astype(decay.dtype) for t in range(size)]
    d_current = [0] * size
    for k in levels:
      trace = [u[k]]
      for x_t in x:
        trace.append(advance_level(k, trace[-1], x_t))
      for t in reversed(range(size)):
        d, d_v, d_decay_t = retreat_level(k, trace[t + 1], g[t], d_next[k])
        if d_final is not None and t == size - 1:
          # No later timestep resets the final state.
          d += d_final[k]
        d_next[k] = d
        d_current[t] += d
        d_thresholds[k] += d_v
        d_decay[0] += d_decay_t
    for t in range(size):
      block.write(results['current'], start + t, d_current[t])
    return d_next, d_thresholds, d_decay

  def retreat_in_loop(i, carry):
    i = loops - 1 - i
    u = [block.read(results['first'], i * len(levels) + k) for k in levels]
    return retreat_segment(i * _SEGMENT, _SEGMENT, u, carry)

  loops, last = _segments(arrays['x'].shape[0])
  u_0 = [read('u', k) for k in levels]
  u = _repeat(loops, advance_segment, u_0)
  nothing = [jnp.zeros_like(u_k) for u_k in u_0]
  d_final = [read('d_final', k) for k in levels]
  carry = nothing, nothing, nothing[:1]
  carry = retreat_segment(loops * _SEGMENT, last, u, carry, d_final)
  d_next, d_thresholds, (d_decay,) = _repeat(loops, retreat_in_loop, carry)
  # No spikes are emitted from the initial state.
  for k in levels:
    d, d_v, d_decay_0 = retreat_level(k, u_0[k], nothing[0], d_next[k])
    d_decay += d_decay_0
    block.write(results['u'], k, d)
    results['thresholds'][k, 0] = (d_thresholds[k] + d_v).sum()
  results['decay'][0, 0] = d_decay.sum()


def _repeat(times, body, carry):
  """Folds `body(i, carry)` in a loop; zero times without one."""
  return jax.lax.fori_loop(0, times, body, carry) if times else carry


class _Block:
  """Reads and writes the neurons that one block of a kernel computes."""

  def __init__(self, size, num_neurons, num_channels):
    self._index = pl.program_id(0) * size + jnp.arange(size, dtype=jnp.int32)
    self._inside = self._index < num_neurons
    self._num_channels = num_channels

  def read(self, ref, row):
    """Reads a row of an array, [neuron]; zero past the last neuron."""
    return triton.load(_at(ref, row), mask=self._inside, other=0)

  def write(self, ref, row, values):
    """Writes a row of an array."""
    triton.store(_at(ref, row), values.astype(ref.dtype), mask=self._inside)

  def current(self, ref, affine):
    """Returns the input current as a function of the timestep."""
    if affine is None:
      return functools.partial(self.read, ref)
    channel = self._index % self._num_channels
    affine = jax.tree.map(lambda ref: triton.load(ref.at[channel]), affine)
    return lambda t: affine(self.read(ref, t))


def _at(ref, row):
  # Interpreted kernels do not accept Python numbers as indices.
  return ref.at[jnp.asarray(row, int)]


def _call(kernel, arrays, coefficients, results, sums=None):
  """Runs a kernel over blocks of neurons.

  Args:
    kernel: function of a `_Block` and of references to `arrays`,
      `coefficients` and the returned arrays.
    arrays: names to arrays [n, ...], `x` among them; a block sees its neurons,
      [n, neuron].
    coefficients: arrays that every block sees whole.
    results: names to n and dtype of arrays [n, neuron].
    sums: names to n and dtype of arrays [n, block].

  Returns:
    Names to arrays, for results and sums.
  """
  x = arrays['x']
  num_neurons = x[0].size
  size = min(_BLOCK, pl.next_power_of_2(num_neurons))
  num_blocks = pl.cdiv(num_neurons, size)
  columns = lambda n, size: pl.BlockSpec((n, size), lambda i: (0, i))
  shapes = {name: (*of, num_neurons, size) for name, of in results.items()}
  shapes |= {name: (*of, num_blocks, 1) for name, of in (sums or {}).items()}
  return pl.pallas_call(
    lambda *refs: kernel(_Block(size, num_neurons, x.shape[-1]), *refs),
    grid=(num_blocks,),
    in_specs=[
      {name: columns(a.shape[0], size) for name, a in arrays.items()},
      jax.tree.map(
        lambda a: pl.BlockSpec(a.shape, lambda i: (0,)), coefficients
      ),
    ],
    out_specs={
      name: columns(n, size) for name, (n, _, _, size) in shapes.items()
    },
    out_shape={
      # Inside `shard_map`, results vary over the axes of the current.
      name: jax.ShapeDtypeStruct(
        (n, width), dtype, manual_axis_type=jax.typeof(x).manual_axis_type
      )
      for name, (n, dtype, width, _) in shapes.items()
    },
    compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
  )(
    {name: a.reshape(a.shape[0], num_neurons) for name, a in arrays.items()},
    coefficients,
  )
