"""Costs of a training step and what they predict on many chips."""

import concurrent.futures
import types

import jax
import pytest

from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data, scaling_estimate
from mlf_jax.training.chips import Chip, Switch
from mlf_jax.training.memory_estimate import compile_step
from mlf_jax.training.scaling_estimate import AllReduces, Linear, Plan
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')


def bytes_of_means(config):
  """Bytes that a step has to average over devices.

  Loss, accuracy, gradients, and per normalised channel mean and variance
  forward and their gradients backward, none of them for the network's input.
  """
  shape, num_classes = configured_data.sample_spec(config)
  model = config_lib.build_model(config, num_classes)
  variables = tiny.drawn_variables(model, shape)
  statistics = jax.tree.leaves_with_path(variables['batch_stats'])
  channels = sum(leaf.size for _, leaf in statistics) // 2
  of_input = 2 if config.model.normalize_input else 0
  parameters = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  return 4 * (parameters + 2 + 4 * channels - 2 * of_input)


def frames(**changes):
  return tiny.config(
    'n_mnist', data__downsample=4.0, model__normalize_input=True, **changes
  )


@pytest.mark.parametrize(
  ('config', 'numbers_of_devices'),
  [
    pytest.param(frames(model__residual='plain'), (8,), id='plain-frames'),
    pytest.param(*(tiny.config(), (4, 8)), id='ds', marks=pytest.mark.slow),
  ],
)
def test_all_reduces_are_those_of_any_number_of_devices(
  config, numbers_of_devices
):
  """Counted in the text of the compiled training step."""
  devices = jax.devices()

  def count(n):
    text = compile_step(config, 2, devices[:n]).as_text()
    return text.count(' all-reduce('), text.count('all-reduce-start')

  with concurrent.futures.ThreadPoolExecutor() as threads:
    counted = threads.map(count, numbers_of_devices)
    predicted = scaling_estimate.all_reduces(config, devices[:2])
    assert {*counted} == {(predicted.count, 0)}
  assert predicted.bytes == bytes_of_means(config)


TWO_ALL_REDUCES = """
  %all-reduce.1 = (f32[3,4]{1,0}, /*index=1*/bf16[5]{0}) all-reduce(%a, %b)
  %c = f32[3,4]{1,0} get-tuple-element(%all-reduce.1), index=0
  ROOT %psum.2 = f64[]{:T(128)} all-reduce(%d), channel_id=1
"""


def test_bytes_of_all_reduces_are_read_from_the_program():
  found = scaling_estimate.all_reduces_in(TWO_ALL_REDUCES)
  assert found == AllReduces(2, 3 * 4 * 4 + 5 * 2 + 8)


def test_costs_are_a_line_through_two_batches_with_blocks_written_out(
  monkeypatch,
):
  """A loop over blocks would count as one block."""

  def compile_step(config, batch_size, devices, options):
    assert not config.model.scan_blocks
    costs = {'flops': 7 + 3 * batch_size, 'bytes accessed': 5 * batch_size}
    return types.SimpleNamespace(
      cost_analysis=lambda: costs,
      as_text=lambda: TWO_ALL_REDUCES if len(devices) == 2 else '',
    )

  monkeypatch.setattr(scaling_estimate, 'compile_step', compile_step)
  costs = scaling_estimate.step_costs(tiny.config(model__scan_blocks=True))
  assert (costs.flops, costs.bytes) == (Linear(7, 3), Linear(0, 5))
  assert costs.all_reduces.count == 2


def test_one_cpu_device_is_too_few(monkeypatch):
  monkeypatch.setattr(jax, 'devices', lambda platform: ['the only one'])
  with pytest.raises(UserError, match='JAX_NUM_CPU_DEVICES=2'):
    scaling_estimate.two_cpu_devices()


def plan(flops=(0.0, 1.0), size=(0.0, 0.0001), attained=1.0):
  """A chip with a peak of 100 FLOP/s; 8 of them take 4 s for 2 all-reduces."""
  chip = Chip({'float32': 100.0}, 1.0, Switch(8, 1.0, 0.1), 1.0, 1.0, 0.6)
  costs = scaling_estimate.StepCosts(
    Linear(*flops), Linear(*size), AllReduces(2, 0)
  )
  return Plan(costs, chip, 'float32', attained)


def test_a_step_takes_as_long_as_its_slower_cost_and_its_all_reduces():
  assert plan().step_seconds(50, 1) == 0.5
  assert plan(attained=0.25).step_seconds(50, 1) == 2
  assert plan().step_seconds(50, 8) == pytest.approx(0.5 + 4)
  memory_bound = plan(size=(1.0, 0.1))
  assert memory_bound.step_seconds(50, 8) == pytest.approx(6 + 4)


@pytest.mark.parametrize(
  ('costs', 'expected'),
  [
    ({}, 400),
    ({'attained': 0.5}, 200),
    ({'flops': (99.5, 1.0)}, 301),
    ({'size': (0.0, 0.1)}, 40),
    ({'size': (0.0, 10.0)}, 1),
  ],
)
def test_communication_dominates_below_the_balanced_batch(costs, expected):
  predicted = plan(**costs)
  balanced = predicted.balanced_batch_size(8)
  assert balanced == expected
  seconds = predicted.all_reduce_seconds(8)
  assert predicted.compute_seconds(balanced) >= seconds * (1 - 1e-9)
  if balanced > 1:
    assert predicted.compute_seconds(balanced - 1) < seconds
  assert plan().balanced_batch_size(1) == 1


@pytest.mark.slow
def test_flops_are_those_of_the_convolutions():
  """Each forward and for two gradients, padding not counted; a little more."""
  width, time_steps = 64, 4
  config = tiny.config(model__widths=(width,) * 3, model__time_steps=time_steps)
  costs = scaling_estimate.step_costs(config)

  def taps(side, stride=1):
    """Pairs of input pixel and output pixel of a 3x3 convolution."""
    return (3 * side // stride - (1 if stride == 2 else 2)) ** 2

  # Two blocks start with stride 2, and have a projection as their shortcut.
  pairs = 2 * taps(8)
  for side in (8, 4):
    pairs += taps(side, 2) + taps(side // 2) + (side // 2) ** 2
  flops = 3 * 2 * time_steps * width**2 * pairs
  assert 1 < costs.flops.per_sample / flops < 1.1
