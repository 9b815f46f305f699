"""Networks to and from NIR, the Neuromorphic Intermediate Representation.

NIR describes a network as a graph of primitives that simulators and chips
read. It has neither normalisation nor multi-level units nor a node that adds:
normalisation is folded into the convolution before it, each level of a unit is
a neuron of its own, and edges into the same node add up. docs/nir.md has the
details. Needs `pip install "mlf_jax[nir]"`.

Source: Pedersen et al., "Neuromorphic intermediate representation: A unified
instruction set for interoperable brain-inspired computing", Nature
Communications 2024; neuroir.org.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax.data.io import write_atomically
from mlf_jax.errors import UserError, require_positive_integers
from mlf_jax.interop import nir_graph
from mlf_jax.interop.published import NETWORKS, require_published
from mlf_jax.layers import MLF, LayerFactory, TDBatchNorm

DECAY_RULES = ('euler', 'exponential')
# Attributes of networks that NIR cannot hold or that the graph spells out.
_DESCRIBED = (
  'stage_sizes',
  'widths',
  'num_classes',
  'time_steps',
  'residual',
  'shortcut',
)


def to_nir(
  model: nn.Module,
  variables: Mapping[str, Mapping],
  input_shape: tuple[int, int, int],
  *,
  scale: float = 1.0,
  mean: float | tuple[float, ...] = 0.0,
  std: float | tuple[float, ...] = 1.0,
  dt: float = 1e-4,
  decay_rule: str = 'euler',
  metadata: Mapping[str, Any] | None = None,
) -> 'nir.NIRGraph':
  """Describes a trained network as a NIR graph, as it is used for evaluation.

  The graph takes one timestep, [channel, height, width], and returns the
  logits of that timestep, [classes]; the network's logits are their mean over
  time. A static image is shown at every timestep. Arrays have the dtype of the
  network's parameters, float32 unless it computes in float64.

  Args:
    model: a `SpikingResNet` with 'ds' or 'plain' blocks or a `SpikingVGG`, with
      `MLF` units.
    variables: {'params': ..., 'batch_stats': ...}.
    input_shape: height, width and channels of an image or a frame.
    scale: the graph normalises its input to (x / scale - mean) / std; this is
      the value of the input that stands for 1.0.
    mean: mean, one for all channels or one per channel.
    std: standard deviation, likewise.
    dt: duration of a timestep in seconds. snnTorch takes 1e-4.
    decay_rule: how the simulator that reads the graph computes the decay over a
      timestep from a time constant: 'euler', 1 - dt / tau (snnTorch, Norse), or
      'exponential', exp(-dt / tau).
    metadata: further entries of the graph's metadata: strings, numbers, arrays.

  Returns:
    The graph. Its metadata holds `time_steps`, `dt`, `decay_rule` and, for
    `from_nir`, `mlf_jax`.

  Raises:
    UserError: NIR is missing, the network cannot be described, the variables
      are not its own or hold NaN, or another argument is outside its range.
  """
  nir = _import_nir()
  _require_describable(model, variables, input_shape)
  if decay_rule not in DECAY_RULES:
    raise UserError(
      f'decay_rule must be one of {", ".join(DECAY_RULES)}; got {decay_rule!r}'
    )
  if not 0 < dt < math.inf:
    raise UserError(f'dt must be positive seconds, got {dt!r}')
  if decay_rule == 'exponential' and model.unit.decay == 0:
    raise UserError(
      "a decay of 0 has no time constant under decay_rule='exponential'; "
      "'euler' has one, dt"
    )
  own = {
    'time_steps': model.time_steps,
    'dt': float(dt),
    'decay_rule': decay_rule,
    'mlf_jax': _description(model),
  }
  if taken := sorted(own.keys() & (metadata or {}).keys()):
    raise UserError(f'metadata must not hold {taken}, which is set here')

  graph = nir_graph.Graph(nir, model, variables, dt, decay_rule)
  height, width, channels = input_shape
  x = graph.add('input', nir.Input(np.array([channels, height, width])), None)
  x = x._replace(shape=(channels, height, width))
  x = graph.normalized(x, scale, mean, std)
  x = nir_graph.add_network(graph, model, x)
  graph.add('output', nir.Output(np.array(x.shape)), x)
  return nir.NIRGraph(
    graph.nodes, graph.edges, metadata={**own, **(metadata or {})}
  )


def from_nir(graph: 'nir.NIRGraph') -> tuple[nn.Module, dict]:
  """Reads a graph that `to_nir` wrote, of `nir.read` for example.

  Args:
    graph: the graph.

  Returns:
    The network and its variables, {'params': ..., 'batch_stats': ...} as NumPy
    arrays. It computes what the graph computes: folded into the weights, tdBN
    is left with the bias, and a normalised input is `normalize_input`. What a
    graph does not tell, such as `memory`, has its default.

  Raises:
    UserError: the graph is none that `to_nir` writes.
  """
  nir = _import_nir()
  about = graph.metadata
  if 'mlf_jax' not in about:
    raise UserError(
      'the graph was written by another program and cannot be read: only those '
      'that mlf_jax.interop.nir.to_nir writes can'
    )
  try:
    model = _described(about['mlf_jax'], nir_graph.NORMALIZE in graph.nodes)
    (entry,) = (n for n in graph.nodes.values() if type(n) is nir.Input)
    channels, height, width = map(int, entry.input_type['input'])
    input_shape = (height, width, channels)
    variables = _variables(graph.nodes, model, input_shape)
    own = to_nir(
      model,
      variables,
      input_shape,
      dt=float(about['dt']),
      decay_rule=str(about['decay_rule']),
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      'the graph is none that mlf_jax.interop.nir.to_nir writes: '
      f'{type(error).__name__}: {error}'.splitlines()[0]
    ) from None
  if difference := _difference(own, graph):
    raise UserError(
      'the graph is none that mlf_jax.interop.nir.to_nir writes: '
      f'{difference} differs from the network that its metadata describes'
    )
  return model, variables


def export_nir(
  path: str | os.PathLike,
  model: nn.Module,
  variables: Mapping[str, Mapping],
  input_shape: tuple[int, int, int],
  **options,
) -> None:
  """Writes a network to a NIR file, which `nir.read` reads.

  The file is either whole or not there.

  Args:
    path: the file, replaced if it exists.
    model: as for `to_nir`, like the next two.
    variables: {'params': ..., 'batch_stats': ...}.
    input_shape: height, width and channels of an image or a frame.
    **options: the other arguments of `to_nir`.

  Raises:
    UserError: as `to_nir`, before anything is written; or there is no such
      folder.
  """
  path = pathlib.Path(path)
  graph = to_nir(model, variables, input_shape, **options)
  if not path.parent.is_dir():
    raise UserError(f'no such folder: {path.parent}')
  write_atomically(path, lambda part: _import_nir().write(part, graph))


def _import_nir() -> ModuleType:
  """The package `nir`."""
  try:
    import nir
  except ImportError:
    raise UserError(
      'NIR graphs need the package nir: pip install "mlf_jax[nir]"'
    ) from None
  return nir


def _require_describable(model, variables, input_shape):
  """Raises `UserError` unless the network can be written as a graph."""
  require_published(model, 'a NIR graph')
  if len(input_shape) != 3:
    raise UserError(
      'input_shape must be (height, width, channels) of one image or frame, '
      f'got {input_shape}'
    )
  require_positive_integers(input_shape=tuple(input_shape))
  wanted = nir_graph.flat(_shapes(model, input_shape))
  given = nir_graph.flat(variables)
  for path in wanted | given:
    needed, found = (
      np.shape(leaves[path]) if path in leaves else 'nothing'
      for leaves in (wanted, given)
    )
    if needed != found:
      raise UserError(
        f'variables: {"/".join(path)} must be of shape {needed} in this '
        f'network, got {found}'.replace('be of shape nothing', 'not be there')
      )
    if not np.isfinite(np.asarray(given[path], np.float64)).all():
      raise UserError(f'variables: {"/".join(path)} holds NaN or infinity')


def _shapes(model, input_shape):
  """Shapes and dtypes of the variables of a network."""
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  with nir_graph.precision_of(LayerFactory.for_network(model).param_dtype):
    return jax.eval_shape(model.init, jax.random.key(0), image)


def _description(model):
  """Network as JSON: what a graph does not say, or not in these words."""
  description = {
    'network': type(model).__name__,
    'unit': dataclasses.asdict(model.unit),
    'dtype': str(LayerFactory.for_network(model).param_dtype),
  }
  for name in _DESCRIBED:
    if hasattr(model, name):
      description[name] = getattr(model, name)
  # NumPy's numbers are none of JSON's.
  return json.dumps(description, default=lambda number: number.item())


def _described(description, normalize_input):
  """Network of a description."""
  tuples = lambda value: (
    tuple(map(tuples, value)) if isinstance(value, list) else value
  )
  values = {k: tuples(v) for k, v in json.loads(description).items()}
  network = NETWORKS[values.pop('network')]
  unit = MLF(**{k: tuples(v) for k, v in values.pop('unit').items()})
  return network(
    unit=unit,
    normalize_input=normalize_input,
    dtype=jnp.dtype(values.pop('dtype')),
    **values,
  )


def _variables(nodes, model, input_shape):
  """Variables with which the network computes what the nodes compute."""
  threshold, epsilon = model.unit.norm_threshold, TDBatchNorm.epsilon
  flat = {}
  for path, leaf in nir_graph.flat(_shapes(model, input_shape)).items():
    *scope, module, name = path[1:]
    if module == 'bn0':
      node = nodes[nir_graph.NORMALIZE]
      factor = np.diag(node.weight[:, :, 0, 0]).astype(np.float64)
      value = {
        'mean': -node.bias / factor,
        'var': (threshold / factor - epsilon) ** 2,
      }[name]
    elif 'bn' in module:
      # tdBN that adds a bias and nothing else.
      node = nodes['_'.join((*scope, module.replace('bn', 'conv')))]
      value = {
        'mean': 0,
        'var': (1 - epsilon) ** 2,
        'scale': 1 / threshold,
        'bias': node.bias,
      }[name]
    else:
      node = nodes['_'.join((*scope, module))]
      if name == 'bias':
        value = 0 if module.endswith('conv') else node.bias
      else:
        value = node.weight.transpose(
          (2, 3, 1, 0) if node.weight.ndim == 4 else (1, 0)
        )
    value = np.broadcast_to(value, leaf.shape)
    flat[path] = np.ascontiguousarray(value, leaf.dtype)
  return flax.traverse_util.unflatten_dict(flat)


def _difference(one, other):
  """Name of a node that two graphs do not share; None if they are the same."""
  if odd := one.nodes.keys() ^ other.nodes.keys():
    return f'node {min(odd)!r}'
  if odd := {*map(tuple, one.edges)} ^ {*map(tuple, other.edges)}:
    return f'edge {min(odd)!r}'
  for name, node in one.nodes.items():
    if not _alike(node.to_dict(), other.nodes[name].to_dict()):
      return f'node {name!r}'
  return None


def _alike(one, other):
  """Returns True if two nodes are equal, except for rounding and metadata."""
  return one['type'] == other['type'] and all(
    np.shape(value) == np.shape(other[key])
    and np.allclose(value, other[key], rtol=1e-5, atol=1e-6)
    for key, value in one.items()
    if key not in ('type', 'metadata')
  )
