"""Converts weights of the published PyTorch implementation to Flax and back.

A state dict here is a plain mapping from names to NumPy arrays, under the
names of the published checkpoints: `layer2.execute.0.shortcut.0.weight`,
`bn1.bn.running_var`, `voting.bias`, `feature.3.conv.1.bn.weight`, ...
Only `load_pth` needs PyTorch itself.
"""

import os
import re
from collections.abc import Mapping

import flax.traverse_util
import numpy as np
from jaxtyping import Array

from mlf_jax.errors import UserError

# Published module names and ours. Names inside a block are the same in both.
_TO_FLAX = (
  (r'layer(\d+)\.execute\.(\d+)\.', r'layer\1_\2/'),
  (r'feature\.(\d+)\.conv\.0$', r'feature\1_conv'),
  (r'feature\.(\d+)\.conv\.1\.bn$', r'feature\1_bn'),
  (r'classifier\.(\d+)$', r'classifier\1'),
  (r'shortcut\.0$', 'shortcut_conv'),
  (r'shortcut\.1\.bn$', 'shortcut_bn'),
  (r'(bn\d)\.bn$', r'\1'),
)
_TO_REFERENCE = (
  (r'layer(\d+)_(\d+)/', r'layer\1.execute.\2.'),
  (r'feature(\d+)_conv$', r'feature.\1.conv.0'),
  (r'feature(\d+)_bn$', r'feature.\1.conv.1.bn'),
  (r'classifier(\d+)$', r'classifier.\1'),
  (r'shortcut_conv$', 'shortcut.0'),
  (r'shortcut_bn$', 'shortcut.1.bn'),
  (r'(bn\d)$', r'\1.bn'),
)
# Modules of the networks, under our names.
_MODULES = (
  r'(layer\d+_\d+/)?(conv[12]|bn[012]|shortcut_(conv|bn))'
  r'|voting|classifier\d+|feature\d+_(conv|bn)'
)
_COUNTER = 'num_batches_tracked'


def _rename(name, rules):
  for pattern, replacement in rules:
    name = re.sub(pattern, replacement, name)
  return name


def from_reference(state_dict: Mapping[str, np.ndarray]) -> dict:
  """Converts a state dict of the published implementation to Flax variables.

  Args:
    state_dict: name to array, channels first. A `module.` prefix, left by
      `DataParallel`, is dropped; `num_batches_tracked` is ignored.

  Returns:
    {'params': ..., 'batch_stats': ...} as NumPy arrays of the given dtypes,
    for `SpikingResNet`, `SpikingVGG` or one block of the former. The published
    CIFAR10-DVS frames are mirrored left and right: a network trained on them
    expects frames made with `config.data.mirrored = True`
    (`FrameSpec.mirrored`). Those of DVS-Gesture are as here.

  Raises:
    UserError: a name is no parameter of these networks.
  """
  flat = {}
  for name, value in state_dict.items():
    name = name.removeprefix('module.')
    module, _, leaf = name.rpartition('.')
    if leaf == _COUNTER:
      continue
    value = np.asarray(value)
    is_norm = module.endswith('.bn')
    collection = 'batch_stats' if leaf.startswith('running_') else 'params'
    if leaf == 'bias' and value.ndim == 1:
      key = 'bias'
    elif is_norm and leaf in ('weight', 'running_mean', 'running_var'):
      key = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}[
        leaf
      ]
    elif leaf == 'weight' and value.ndim == 4:  # OIHW to HWIO
      key, value = 'kernel', value.transpose(2, 3, 1, 0)
    elif leaf == 'weight' and value.ndim == 2:
      key, value = 'kernel', value.T
    else:
      raise UserError(
        f'{name!r} with shape {value.shape} is no parameter of a spiking '
        'ResNet or VGG of the published implementation'
      )
    path = _rename(module, _TO_FLAX).split('/')
    if not re.fullmatch(_MODULES, '/'.join(path)):
      raise UserError(
        f'{name!r} is no parameter of a spiking ResNet or VGG of the published '
        'implementation'
      )
    flat[(collection, *path, key)] = value
  if not flat:
    raise UserError('the state dict holds no parameters')
  return flax.traverse_util.unflatten_dict(flat)


def to_reference(variables: Mapping[str, Mapping]) -> dict[str, np.ndarray]:
  """Converts Flax variables to a state dict with the published names.

  The inverse of `from_reference`; `num_batches_tracked`, which Flax does not
  keep, is 0.

  Args:
    variables: {'params': ..., 'batch_stats': ...} of a `SpikingResNet` or a
      `SpikingVGG`.

  Returns:
    Name to NumPy array, channels first.
  """
  state_dict: dict[str, np.ndarray] = {}
  flat: dict[tuple[str, ...], Array] = flax.traverse_util.flatten_dict(
    {k: variables[k] for k in ('params', 'batch_stats') if k in variables}
  )
  for (_, *path, key), value in flat.items():
    module = _rename('/'.join(path), _TO_REFERENCE)
    value = np.asarray(value)
    if key == 'kernel' and value.ndim == 4:
      value = value.transpose(3, 2, 0, 1)
    elif key == 'kernel':
      value = value.T
    leaf = {
      'kernel': 'weight',
      'scale': 'weight',
      'mean': 'running_mean',
      'var': 'running_var',
    }.get(key, key)
    state_dict[f'{module}.{leaf}'] = np.ascontiguousarray(value)
    if key == 'var':
      state_dict[f'{module}.{_COUNTER}'] = np.zeros((), np.int64)
  return state_dict


def load_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the state dict in a `.pth` file; needs `pip install mlf_jax[torch]`.

  Only tensors and plain containers are read (`weights_only`): a file that
  would run code while it is unpickled is refused.

  Args:
    path: the file: a state dict, or a training checkpoint that keeps one under
      `state_dict`, `model` or `net`.

  Raises:
    UserError: PyTorch is missing, or the file holds no state dict.
  """
  torch = import_torch('reading')
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except FileNotFoundError:
    raise UserError(f'no such file: {path}') from None
  except Exception as error:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
      f'{path} is no checkpoint of tensors alone: {reason}'
    ) from None
  for key in ('state_dict', 'model', 'net'):
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
      content = content[key]
  if not isinstance(content, Mapping) or not all(
    isinstance(v, torch.Tensor) for v in content.values()
  ):
    raise UserError(f'{path} holds no state dict')
  return {k: v.numpy() for k, v in content.items()}


def import_torch(work: str):
  """The package PyTorch.

  Args:
    work: what it is needed for, 'reading' or 'writing' a file.

  Raises:
    UserError: it is missing.
  """
  try:
    import torch
  except ImportError:
    raise UserError(
      f'{work} a .pth file needs PyTorch: pip install "mlf_jax[torch]"'
    ) from None
  return torch
