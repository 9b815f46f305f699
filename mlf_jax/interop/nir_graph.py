"""Builds the nodes and edges of a NIR graph, layer by layer."""

import math
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax.errors import UserError
from mlf_jax.layers import LayerFactory
from mlf_jax.models import BLOCKS, SpikingResNet

# Name of the node that normalises the input.
NORMALIZE = 'normalize'


def precision_of(dtype):
  """Context in which JAX computes in float64 if that is the dtype."""
  return jax.enable_x64(dtype == np.float64)


def flat(variables):
  """Leaves by path, (collection, *modules, name)."""
  return flax.traverse_util.flatten_dict(
    {k: variables[k] for k in ('params', 'batch_stats') if k in variables}
  )


class Signal(NamedTuple):
  """The sum of the outputs of some nodes."""

  sources: tuple[str, ...]
  shape: tuple[int, ...]  # [channel, height, width] or [feature].

  def __add__(self, other):
    """Returns the sum, whose sources are those of both."""
    return Signal(self.sources + other.sources, self.shape)


class Graph:
  """A graph under construction, and what its nodes are made from."""

  def __init__(self, nir, model, variables, dt, decay_rule):
    """Takes the package nir and the arguments of `to_nir`."""
    self.nodes, self.edges = {}, []
    self.nir, self.unit = nir, model.unit
    self.make = LayerFactory.for_network(model)
    self.dtype = np.dtype(self.make.param_dtype)
    self.variables = {path[:-1]: {} for path in flat(variables)}
    for path, leaf in flat(variables).items():
      self.variables[path[:-1]][path[-1]] = np.asarray(leaf)
    decay = self.unit.decay
    self.r = 1 / dt if decay == 1 else 1 / (1 - decay)
    if decay < 1:
      # Under the Euler rule, tau / dt is this same resistance.
      euler = decay_rule == 'euler'
      self.tau = dt * self.r if euler else -dt / math.log(decay)

  def add(self, name, node, x, shape=None):
    """Adds a node that reads `x`; returns its output."""
    self.nodes[name] = node
    self.edges += [(source, name) for source in (x.sources if x else ())]
    return Signal((name,), shape or (x.shape if x else ()))

  def convolution(self, x, path, norm, stride=1):
    """Convolution `path` with the normalisation `norm` folded into it."""
    params = self.variables['params', *path]
    mean, scale, bias = self.coefficients(norm, params['kernel'].shape[-1])
    weight = params['kernel'].transpose(3, 2, 0, 1) * scale[:, None, None, None]
    bias = bias + (params.get('bias', 0) - mean) * scale
    return self.conv2d(x, '_'.join(path), weight, bias, stride)

  def conv2d(self, x, name, weight, bias, stride=1):
    """Convolution that keeps height and width, but for the stride."""
    features, _, size, _ = weight.shape
    node = self.nir.Conv2d(
      input_shape=x.shape[1:],
      weight=weight.astype(self.dtype),
      stride=stride,
      padding=size // 2,
      dilation=1,
      groups=1,
      bias=bias.astype(self.dtype),
    )
    sides = (-(-side // stride) for side in x.shape[1:])
    return self.add(name, node, x, (features, *sides))

  def coefficients(self, path, channels, **attributes):
    """Coefficients of a normalisation in evaluation, in float64."""
    variables = {
      collection: self.variables[collection, *path]
      for collection in ('params', 'batch_stats')
      if (collection, *path) in self.variables
    }
    with precision_of(self.dtype):
      affine = self.make.norm(**attributes).apply(
        variables,
        jnp.zeros((1, channels), self.dtype),
        use_running_average=True,
        method='coefficients',
      )
    return tuple(np.asarray(value, np.float64) for value in affine)

  def normalized(self, x, scale, mean, std):
    """Normalised input.

    A convolution of its own: its offset cannot be folded into the next one,
    which pads with zeros after the normalisation.
    """
    channels = x.shape[0]
    try:
      scale, mean, std = (
        np.broadcast_to(np.asarray(value, np.float64), channels)
        for value in (scale, mean, std)
      )
    except ValueError:
      raise UserError(
        f'scale, mean and std must be one number or {channels}, one per channel'
      ) from None
    if not ((scale > 0) & (std > 0) & np.isfinite(scale * std + mean)).all():
      raise UserError(
        'scale and std must be positive and finite, and mean finite, got '
        f'scale {scale.tolist()}, mean {mean.tolist()}, std {std.tolist()}'
      )
    factor, offset = 1 / (scale * std), -mean / std
    if ('batch_stats', 'bn0') in self.variables:
      mean, scale, _ = self.coefficients(('bn0',), channels, affine=False)
      factor, offset = factor * scale, (offset - mean) * scale
    if (factor == 1).all() and (offset == 0).all():
      return x
    weight = np.diag(factor)[:, :, None, None]
    return self.conv2d(x, NORMALIZE, weight, offset)

  def units(self, x, *path):
    """Spiking units: one neuron per level, all of which read `x`."""
    full = lambda value: np.full(x.shape, value, self.dtype)
    sources = ()
    for level, threshold in enumerate(self.unit.thresholds, 1):
      neuron = {
        'r': full(self.r),
        'v_threshold': full(threshold),
        'v_reset': full(0),
      }
      if self.unit.decay == 1:
        node = self.nir.IF(**neuron)
      else:
        node = self.nir.LIF(tau=full(self.tau), v_leak=full(0), **neuron)
      name = '_'.join((*path, f'level{level}'))
      sources += self.add(name, node, x).sources
    return Signal(sources, x.shape)

  def average(self, x, name, window):
    """Average over windows of the image that do not overlap."""
    node = self.nir.AvgPool2d(
      kernel_size=np.array(window),
      stride=np.array(window),
      padding=np.array((0, 0)),
    )
    sides = (
      side // step for side, step in zip(x.shape[1:], window, strict=True)
    )
    return self.add(name, node, x, (x.shape[0], *sides))

  def flatten(self, x, name):
    """Features of an image of one pixel, in the order of the channels."""
    # Dimensions that are counted from the end are the same with and without a
    # batch in front: importers disagree about the batch.
    node = self.nir.Flatten(
      {'input': np.array(x.shape)}, start_dim=-3, end_dim=-1
    )
    return self.add(name, node, x, (math.prod(x.shape),))

  def dense(self, x, name):
    """Dense layer."""
    params = self.variables['params', name]
    node = self.nir.Affine(
      weight=np.ascontiguousarray(params['kernel'].T.astype(self.dtype)),
      bias=params['bias'].astype(self.dtype),
    )
    return self.add(name, node, x, params['bias'].shape)


def add_network(graph: 'Graph', model, x: 'Signal') -> 'Signal':
  """Adds the nodes of a network that reads `x`; returns its logits."""
  add = _resnet if isinstance(model, SpikingResNet) else _vgg
  return add(graph, model, x)


def _resnet(graph, model, x):
  """Adds the nodes of a `SpikingResNet`; returns its logits."""
  ends = model.shortcut or BLOCKS[model.residual].default_shortcut
  x = graph.units(graph.convolution(x, ('conv1',), ('bn1',)), 'units1')
  for stage, (size, features) in enumerate(
    zip(model.stage_sizes, model.widths, strict=True)
  ):
    for i in range(size):
      name, stride = f'layer{stage + 1}_{i}', 1 if i or not stage else 2
      shortcut = x
      if stride != 1 or x.shape[0] != features:
        shortcut = graph.convolution(
          x, (name, 'shortcut_conv'), (name, 'shortcut_bn'), stride=stride
        )
        if ends == 'mlf':
          shortcut = graph.units(shortcut, name, 'shortcut_units')
      x = graph.convolution(x, (name, 'conv1'), (name, 'bn1'), stride=stride)
      x = graph.units(x, name, 'units1')
      x = graph.convolution(x, (name, 'conv2'), (name, 'bn2'))
      if model.residual == 'ds':
        x = graph.units(x, name, 'units2') + shortcut
      else:
        x = graph.units(x + shortcut, name, 'units2')
  x = graph.average(x, 'pool', x.shape[1:])
  return graph.dense(graph.flatten(x, 'flatten'), 'voting')


def _vgg(graph, model, x):
  """Adds the nodes of a `SpikingVGG`; returns its logits."""
  index = 0
  for group in model.widths:
    for _ in group:
      name = f'feature{index}'
      x = graph.convolution(x, (f'{name}_conv',), (f'{name}_bn',))
      x = graph.units(x, f'{name}_units')
      index += 1
    x = graph.average(x, f'feature{index}_pool', (2, 2))
    index += 1
  x = graph.flatten(x, 'flatten')
  for name in ('classifier0', 'classifier3'):
    x = graph.units(graph.dense(x, name), f'{name}_units')
  return graph.dense(x, 'classifier6')
