"""A NumPy interpreter of NIR graphs, written from NIR's published equations.

It stands for a simulator that somebody else wrote, so it imports nothing of the
library that writes the graphs. Source: Pedersen et al., Nature Communications
2024, and the docstrings of the package nir 1.0.8.
"""

import nir
import numpy as np

# Continuous equations do not say how a timestep is computed: simulators differ.
STRICT, NOT_STRICT = np.greater, np.greater_equal


def run(graph, frames, dt, decay_rule, dtype, fires=STRICT, late_reset=False):
  """Runs a graph over frames.

  Args:
    graph: a `nir.NIRGraph` without loops, with one input and one output.
    frames: [time, batch, *shape of the input].
    dt: duration of a timestep in seconds.
    decay_rule: how v follows tau v' = v_leak - v + R I over a timestep: 'euler'
      or 'exponential'.
    dtype: dtype in which everything is computed.
    fires: comparison of potential and threshold.
    late_reset: reset at the next timestep, after its current was added.

  Returns:
    Output of each node by name, each [time, batch, *shape of the output].
  """
  order = _topological_order(graph)
  sources = {name: [a for a, b in graph.edges if b == name] for name in order}
  state, outputs = {}, {name: [] for name in order}
  for frame in frames:
    now = {}
    for name in order:
      node = graph.nodes[name]
      if isinstance(node, nir.Input):
        now[name] = frame.astype(dtype)
        assert frame.shape[1:] == tuple(node.input_type['input'])
        continue
      # Edges into the same node add up.
      x = sum(now[source] for source in sources[name])
      if isinstance(node, nir.LIF | nir.IF):
        spikes, state[name] = _neuron(
          node, x, state.get(name), dt, decay_rule, fires, late_reset
        )
        now[name] = spikes.astype(dtype)
      else:
        now[name] = _stateless(node, x)
      assert now[name].shape[1:] == tuple(node.output_type['output']), name
      assert now[name].dtype == dtype, name
    for name, value in now.items():
      outputs[name].append(value)
  return {name: np.stack(values) for name, values in outputs.items()}


def _topological_order(graph):
  order, waiting = [], sorted(graph.nodes)
  while waiting:
    ready = [
      name
      for name in waiting
      if all(a in order for a, b in graph.edges if b == name)
    ]
    assert ready, 'the graph has a loop'
    order += ready
    waiting = [name for name in waiting if name not in ready]
  return order


def _neuron(node, current, state, dt, decay_rule, fires, late_reset):
  """Spikes and new state of a (leaky) integrate-and-fire neuron."""
  if state is None:
    state = np.zeros_like(current), np.zeros(current.shape, bool)
  v, fired = state
  r, v_reset = (a.astype(current.dtype) for a in (node.r, node.v_reset))
  if isinstance(node, nir.IF):  # v' = R I
    v = v + np.asarray(dt, v.dtype) * r * current
  else:  # tau v' = v_leak - v + R I
    v_leak, tau = (a.astype(current.dtype) for a in (node.v_leak, node.tau))
    target = v_leak + r * current
    ratio = np.asarray(dt, v.dtype) / tau
    if decay_rule == 'euler':
      v = v + ratio * (target - v)
    else:
      v = target + np.exp(-ratio) * (v - target)
  if late_reset:
    v = np.where(fired, v_reset, v)
  spikes = fires(v, node.v_threshold.astype(v.dtype))
  if not late_reset:
    v = np.where(spikes, v_reset, v)
  return spikes, (v, spikes)


def _stateless(node, x):
  match node:
    case nir.Output():
      return x
    case nir.Affine():
      return x @ node.weight.T.astype(x.dtype) + node.bias.astype(x.dtype)
    case nir.Flatten():
      # NIR's shapes have no batch.
      shape = node.input_type['input']
      assert node.start_dim % len(shape) == 0
      assert node.end_dim % len(shape) == len(shape) - 1
      return x.reshape(len(x), -1)
    case nir.AvgPool2d():
      assert not np.any(node.padding)
      windows = _windows(x, tuple(node.kernel_size), node.stride)
      return windows.mean((-2, -1), dtype=x.dtype)
    case nir.Conv2d():
      assert node.groups == 1
      assert tuple(np.broadcast_to(node.dilation, 2)) == (1, 1)
      down, right = np.broadcast_to(node.padding, 2)
      x = np.pad(x, ((0, 0), (0, 0), (down, down), (right, right)))
      windows = _windows(x, node.weight.shape[2:], node.stride)
      y = np.tensordot(
        windows, node.weight.astype(x.dtype), ((1, 4, 5), (1, 2, 3))
      )
      return np.moveaxis(y + node.bias.astype(x.dtype), -1, 1)
  raise AssertionError(f'unknown node {node}')


def _windows(x, kernel, stride):
  """Windows of [batch, channel, height, width], on two last axes."""
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))
  down, right = np.broadcast_to(stride, 2)
  return windows[:, :, ::down, ::right]
