"""The recursion of an MLF unit as two kernels for NVIDIA GPUs.

A thread has its neurons from the first timestep to the last: their membrane
potentials stay in registers. A loop over timesteps would write and read them at
each one, and start a kernel for it.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from mlf_jax import surrogate as surrogate_lib
from mlf_jax.equations import advance, fired, retreat

# Timesteps that are written out. More of them run in a loop over segments, each
# of whose first membranes the backward pass writes to memory.
_SEGMENT = 8
# Neurons of a block, and warps that share them.
_BLOCK = 256
_WARPS = 4


def can_index(x, u) -> bool:
  """Whether no array of the kernels is too large for an index of 32 bits.

  Args:
    x: input current, [time, ...].
    u: membrane potentials, [level, ...].
  """
  loops, _ = _segments(x.shape[0])
  return max(x.size, u.size * max(1, loops)) < 2**31


# Compiled, and so traced once for all layers of a shape: done for each, it took
# 20 of the 33 s before the first step of DS-ResNet-20 at T = 40.
@jax.jit
def forward(x, u, affine, thresholds, decay):
  """Final membrane potentials and spikes.

  Args:
    x: input current, or what `affine` makes it from, [time, ...].
    u: initial membrane potentials, [level, ...].
    affine: coefficients of a channel, or None.
    thresholds: [level].
    decay: scalar.

  Returns:
    Membrane potentials, [level, ...], and spikes in the shape and dtype of `x`.
  """
  results = _call(
    _forward_kernel,
    {'x': x, 'u': u},
    (affine, thresholds, decay[None]),
    {'u': (u.shape[0], u.dtype), 'spikes': (x.shape[0], x.dtype)},
  )
  return results['u'].reshape(u.shape), results['spikes'].reshape(x.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def backward(width, surrogate, x, u, g, later, affine, thresholds, decay):
  """Recomputes the membranes and goes back.

  Takes what `forward` takes, the `width` and name of the `surrogate` windows,
  and the cotangents of what it returns: `g` of the spikes, `later` of the
  membrane potentials. Returns those of the input current, `u`, `thresholds` and
  `decay`.
  """
  window = functools.partial(
    surrogate_lib.derivative, width=width, surrogate=surrogate
  )
  num_steps, num_levels = x.shape[0], u.shape[0]
  results = {
    'current': (num_steps, x.dtype if affine is None else u.dtype),
    'u': (num_levels, u.dtype),
  }
  loops, _ = _segments(num_steps)
  if loops:
    results['first'] = (loops * num_levels, u.dtype)
  d = _call(
    functools.partial(_backward_kernel, window),
    {'x': x, 'u': u, 'g': g, 'later': later},
    (affine, thresholds, decay[None]),
    results,
    {'thresholds': (num_levels, u.dtype), 'decay': (1, u.dtype)},
  )
  return (
    d['current'].reshape(x.shape),
    d['u'].reshape(u.shape),
    d['thresholds'].sum(1),
    d['decay'].sum(),
  )


def _segments(num_steps):
  """Segments in the loop, and timesteps of the last one, which is not in it."""
  loops, rest = divmod(num_steps - 1, _SEGMENT)
  return loops, rest + 1


def _forward_kernel(block, arrays, coefficients, results):
  affine, thresholds, decay = coefficients
  levels = range(thresholds.shape[0])
  thresholds, decay = [thresholds[k] for k in levels], decay[0]
  current = block.current(arrays['x'], affine)

  def segment(start, size, u):
    for t in range(size):
      x_t = current(start + t)
      u = [advance(thresholds[k], decay, u[k], x_t) for k in levels]
      spikes = fired(thresholds, u, results['spikes'].dtype)
      block.write(results['spikes'], start + t, spikes)
    return u

  loops, last = _segments(arrays['x'].shape[0])
  u = [block.read(arrays['u'], k) for k in levels]
  u = _repeat(loops, lambda i, u: segment(i * _SEGMENT, _SEGMENT, u), u)
  u = segment(loops * _SEGMENT, last, u)
  for k in levels:
    block.write(results['u'], k, u[k])


def _backward_kernel(window, block, arrays, coefficients, results):
  affine, thresholds, decay = coefficients
  levels = range(thresholds.shape[0])
  thresholds, decay = [thresholds[k] for k in levels], decay[0]
  current = block.current(arrays['x'], affine)
  read = lambda name, k: block.read(arrays[name], k)

  def forth(i, u):
    for k in levels:
      block.write(results['first'], i * len(levels) + k, u[k])
    for t in range(_SEGMENT):
      x_t = current(i * _SEGMENT + t)
      u = [advance(thresholds[k], decay, u[k], x_t) for k in levels]
    return u

  def segment(start, size, u, carry, later=None):
    d_next, d_thresholds, d_decay = map(list, carry)
    x = [current(start + t) for t in range(size)]
    g = [read('g', start + t).astype(decay.dtype) for t in range(size)]
    d_current = [0] * size
    for k in levels:
      trace = [u[k]]
      for x_t in x:
        trace.append(advance(thresholds[k], decay, trace[-1], x_t))
      for t in reversed(range(size)):
        d, d_v, d_decay_t = retreat(
          window, thresholds[k], decay, trace[t + 1], g[t], d_next[k]
        )
        if later is not None and t == size - 1:
          # Of the final state, which no later timestep resets.
          d += later[k]
        d_next[k] = d
        d_current[t] += d
        d_thresholds[k] += d_v
        d_decay[0] += d_decay_t
    for t in range(size):
      block.write(results['current'], start + t, d_current[t])
    return d_next, d_thresholds, d_decay

  def back(i, carry):
    i = loops - 1 - i
    u = [block.read(results['first'], i * len(levels) + k) for k in levels]
    return segment(i * _SEGMENT, _SEGMENT, u, carry)

  loops, last = _segments(arrays['x'].shape[0])
  u_0 = [read('u', k) for k in levels]
  u = _repeat(loops, forth, u_0)
  nothing = [jnp.zeros_like(u_k) for u_k in u_0]
  later = [read('later', k) for k in levels]
  carry = nothing, nothing, nothing[:1]
  carry = segment(loops * _SEGMENT, last, u, carry, later)
  d_next, d_thresholds, (d_decay,) = _repeat(loops, back, carry)
  # The initial state, from which no spikes come.
  for k in levels:
    d, d_v, d_decay_0 = retreat(
      window, thresholds[k], decay, u_0[k], nothing[0], d_next[k]
    )
    d_decay += d_decay_0
    block.write(results['u'], k, d)
    results['thresholds'][k, 0] = (d_thresholds[k] + d_v).sum()
  results['decay'][0, 0] = d_decay.sum()


def _repeat(times, body, carry):
  """Folds `body(i, carry)`, in a loop unless there is nothing to do."""
  return jax.lax.fori_loop(0, times, body, carry) if times else carry


class _Block:
  """The neurons that a kernel is run for."""

  def __init__(self, size, num_neurons, num_channels):
    self._index = pl.program_id(0) * size + jnp.arange(size, dtype=jnp.int32)
    self._inside = self._index < num_neurons
    self._num_channels = num_channels

  def read(self, ref, row):
    """Row of an array, [neuron]; zero past the last neuron."""
    return triton.load(_at(ref, row), mask=self._inside, other=0)

  def write(self, ref, row, values):
    """Puts a row into an array."""
    triton.store(_at(ref, row), values.astype(ref.dtype), mask=self._inside)

  def current(self, ref, affine):
    """The input current, a function of the timestep."""
    if affine is None:
      return functools.partial(self.read, ref)
    channel = self._index % self._num_channels
    affine = jax.tree.map(lambda ref: triton.load(ref.at[channel]), affine)
    return lambda t: affine(self.read(ref, t))


def _at(ref, row):
  # Interpreted kernels take no index that is a Python number.
  return ref.at[jnp.asarray(row, int)]


def _call(kernel, arrays, coefficients, results, sums=None):
  """Runs a kernel for blocks of neurons.

  Args:
    kernel: function of a `_Block`, and of references to the arrays that are
      named here and to what is returned.
    arrays: name to [n, ...], of which a block has [n, neuron]; `x` is one.
    coefficients: what every block has as it is.
    results: name to n and dtype of an array [n, neuron].
    sums: name to n and dtype of an array [n, block].

  Returns:
    Name to array, of results and sums.
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
      # Inside `shard_map`, they vary as the current does.
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
