"""Weights of the published implementation, to Flax and back."""

import importlib.util
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, models
from mlf_jax.interop import torch as interop
from tests import golden_data


@pytest.fixture(autouse=True)
def flax_pools():
  """Flax's average pool, in the VGG, divides by an integer."""
  with jax.numpy_dtype_promotion('standard'):
    yield


def assert_same(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert one[name].shape == other[name].shape


@pytest.mark.parametrize(
  'name', ['gesture_ds_resnet20_T6', 'block_ds_down', 'block_plain_same']
)
def test_reference_round_trip(name):
  state_dict = golden_data.section(golden_data.load(name), 'param')
  back = interop.to_reference(interop.from_reference(state_dict))
  state_dict = {
    k: np.zeros(()) if k.endswith('num_batches_tracked') else v
    for k, v in state_dict.items()
  }
  assert_same(back, state_dict)


@pytest.mark.parametrize(
  ('model', 'shape', 'names'),
  [
    (
      models.ds_resnet14_cifar10_dvs(time_steps=2),
      (1, 2, 42, 42, 2),
      ['layer3.execute.0.shortcut.1.bn.running_var', 'voting.bias'],
    ),
    (
      models.spiking_vgg16(time_steps=1),
      (1, 32, 32, 3),
      ['feature.16.conv.1.bn.weight', 'classifier.6.weight'],
    ),
  ],
)
def test_flax_round_trip(model, shape, names):
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
  generator = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda s: generator.normal(size=s.shape).astype(np.float32), shapes
  )
  state_dict = interop.to_reference(variables)
  assert set(names) < state_dict.keys()
  assert all(v.dtype in (np.float32, np.int64) for v in state_dict.values())
  chex.assert_trees_all_equal(interop.from_reference(state_dict), variables)


def test_vgg_feature_names_skip_the_pools():
  shapes = jax.eval_shape(
    models.spiking_vgg16(time_steps=1).init,
    jax.random.key(0),
    jnp.zeros((1, 32, 32, 3)),
  )
  variables = jax.tree.map(lambda s: np.zeros(s.shape, np.int8), shapes)
  names = interop.to_reference(variables)
  indices = {int(n.split('.')[1]) for n in names if n.startswith('feature.')}
  assert indices == set(range(17)) - {2, 5, 9, 13}
  assert {n for n in names if n.startswith('classifier.')} == {
    f'classifier.{i}.{leaf}' for i in (0, 3, 6) for leaf in ('weight', 'bias')
  }


def test_data_parallel_prefix_is_dropped():
  state_dict = {'module.voting.bias': np.zeros(3)}
  assert interop.from_reference(state_dict) == {
    'params': {'voting': {'bias': pytest.approx(np.zeros(3))}}
  }


def test_mistakes():
  with pytest.raises(UserError, match=r"'fc\.scale' with shape"):
    interop.from_reference({'fc.scale': np.zeros(3)})
  for name in ('fc.bias', 'layer1.0.conv1.weight', 'conv7.weight'):
    with pytest.raises(UserError, match='is no parameter of a spiking'):
      interop.from_reference(
        {name: np.zeros((3,) if 'bias' in name else (1, 1, 3, 3))}
      )
  with pytest.raises(UserError, match='no parameters'):
    interop.from_reference({})


needs_torch = pytest.mark.skipif(
  importlib.util.find_spec('torch') is None, reason='needs PyTorch'
)


@needs_torch
def test_pth_file(tmp_path):
  import torch

  state_dict = golden_data.section(golden_data.load('block_ds_down'), 'param')
  tensors = {k: torch.from_numpy(v) for k, v in state_dict.items()}
  for content in (tensors, {'state_dict': tensors, 'epoch': 3}):
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    assert_same(interop.load_pth(path), state_dict)


class _Exploit:
  def __reduce__(self):
    return (print, ('code ran',))


@needs_torch
def test_pth_file_never_runs_code(tmp_path, capsys):
  path = tmp_path / 'weights.pth'
  path.write_bytes(pickle.dumps({'weight': _Exploit()}))
  with pytest.raises(UserError, match='no checkpoint of tensors alone'):
    interop.load_pth(path)
  assert 'code ran' not in capsys.readouterr().out


@pytest.mark.skipif(
  importlib.util.find_spec('torch') is not None, reason='PyTorch is here'
)
def test_without_torch_the_error_names_the_extra(tmp_path):
  with pytest.raises(UserError, match=r'pip install "mlf_jax\[torch\]"'):
    interop.load_pth(tmp_path / 'weights.pth')
