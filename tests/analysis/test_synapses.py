"""Synaptic operations: every spike and every synapse counted by itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, activity, models
from mlf_jax.analysis.synapses import count_spikes
from mlf_jax.layers import MLF, Readout, ReLU, SpikingUnits
from tests import quick
from tests.activity import network


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


def inputs_of(model, variables, x):
  """Inputs of convolutions and of the readout, time folded into batch."""

  def hook(module, *args, **kwargs):
    if isinstance(module, (nn.Conv, Readout)):
      return args[0]

  taken = quick.jit(lambda x: activity.capture(model, variables, x, hook)[1])(x)
  return {path: np.asarray(value) for path, value in taken.items()}


def synapses_of(shape, place, kernel_size, stride, features):
  """Outgoing synapses of one position, one by one."""
  count, padding = 0, kernel_size // 2
  rows, columns = (-(-side // stride) for side in shape)
  for row, column, tap_row, tap_column, _ in np.ndindex(
    rows, columns, kernel_size, kernel_size, features
  ):
    reached = (
      row * stride + tap_row - padding,
      column * stride + tap_column - padding,
    )
    count += reached == place
  return count


LAYERS = {  # Kernel size, stride, output channels.
  'conv1': (3, 1, 2),
  'layer1_0/conv1': (3, 1, 2),
  'layer1_0/conv2': (3, 1, 2),
  'layer2_0/shortcut_conv': (1, 2, 3),
  'layer2_0/conv1': (3, 2, 3),
  'layer2_0/conv2': (3, 1, 3),
}


def test_operations_equal_a_count_over_single_spikes_and_synapses():
  model, variables, x = network.tiny()
  counted = count_spikes(model, variables, x)
  inputs = inputs_of(model, variables, x)
  assert [*counted] == [*LAYERS, 'voting']
  for path, (kernel_size, stride, features) in LAYERS.items():
    values, layer = inputs[path], counted[path]
    macs, accumulates = 0, np.zeros(len(x), int)
    for row, column in np.ndindex(values.shape[1:3]):
      fan_out = synapses_of(
        values.shape[1:3], (row, column), kernel_size, stride, features
      )
      macs += fan_out * values.shape[3]
      for index, channel in np.ndindex(len(values), values.shape[3]):
        spikes = values[index, row, column, channel]
        for _ in range(int(spikes) if path != 'conv1' else 0):
          accumulates[index % len(x)] += fan_out
    assert layer.macs_once == macs, path
    np.testing.assert_array_equal(layer.accumulates, accumulates)
    # The stem sees an image once, and real numbers.
    expected = macs if path == 'conv1' else 0
    np.testing.assert_array_equal(layer.macs, [expected] * len(x))
    assert path == 'conv1' or accumulates.sum() > 0
  # Each spike that is averaged has a synapse to each class.
  spikes = inputs['Readout_0'].reshape((2, len(x), -1)).sum((0, 2))
  np.testing.assert_array_equal(counted['voting'].accumulates, 4 * spikes)
  assert counted['voting'].macs_once == 3 * 4


def test_blocks_in_a_loop_cost_what_single_blocks_cost():
  model = models.SpikingResNet((3,), (2,), 3, 2)
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  variables = quick.variables(model, x)
  one, other = (
    count_spikes(m, variables, x)
    for m in (model, model.clone(scan_blocks=True))
  )
  assert [*one] == [*other]
  jax.tree.map(np.testing.assert_array_equal, one, other)


class Net(nn.Module):
  """Grouped, dilated convolution of means of four spikes, and another kind."""

  odd: bool = False

  @nn.compact
  def __call__(self, x, train=False):
    x = SpikingUnits(MLF(), 1, jnp.float32)(nn.Conv(4, (3, 3))(x))
    x = nn.avg_pool(x, (2, 2), (2, 2))
    x = nn.Conv(
      6, (3, 3), feature_group_count=2, kernel_dilation=2, padding='VALID'
    )(x)
    return nn.ConvTranspose(2, (3, 3))(x) if self.odd else x


def test_means_of_four_spikes_in_a_grouped_dilated_convolution(flax_pools):
  x = 4 * np.random.default_rng(0).normal(size=(2, 12, 12, 1))
  model, x = Net(odd=True), x.astype(np.float32)
  variables = quick.variables(model, x)
  with pytest.raises(UserError, match='ConvTranspose_0 cannot be counted'):
    count_spikes(model, variables, x)
  model, params = Net(), dict(variables['params'])
  del params['ConvTranspose_0']
  layer = count_spikes(model, {'params': params}, x)['Conv_1']
  assert layer.takes_spikes and not layer.is_whole
  # Each tap meets 2x2 positions; half of 6 features and 4 channels each.
  assert layer.macs_once == 9 * 2 * 2 * 3 * 4
  # One tap reaches each position, so all spikes count alike.
  np.testing.assert_array_equal(layer.fan_out, np.full((6, 6), 3))
  units = activity.measure(model, {'params': params}, x)['SpikingUnits_0']
  assert layer.accumulates.sum() == 3 * units.spikes.sum() > 0


def test_a_rectifier_costs_multiply_accumulates():
  model, variables, x = network.tiny()
  counted = count_spikes(model.clone(unit=ReLU()), variables, x)
  # The network runs its two timesteps, but for the stem.
  for path, layer in counted.items():
    times = 1 if path in ('conv1', 'voting') else 2
    assert layer.macs[0] == times * layer.macs_once and not layer.takes_spikes
