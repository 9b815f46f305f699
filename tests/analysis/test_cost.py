"""The cost of a run, as it is printed and stored."""

import json

import pytest

from mlf_jax.analysis import cost
from tests import quick
from tests.analysis import runs


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


def test_evaluate_prints_and_stores_the_cost(tmp_path, capsys):
  dataset = runs.untrained(tmp_path, (8, 8, 1))
  result = cost.evaluate_cost(tmp_path, 'last', dataset=dataset)
  printed = capsys.readouterr().out
  stored = json.loads((tmp_path / 'cost.json').read_text())
  assert stored['step'] == 3 and 'memory traffic' in stored['left_out']
  assert 'memory traffic' in ' '.join(printed.split())
  assert (stored['samples'], stored['time_steps']) == (runs.SAMPLES, 2)
  assert stored['parameter_bytes'] == 4 * stored['parameters'] > 0
  layers = {layer['name']: layer for layer in stored['layers']}
  assert all(name in printed for name in layers)
  assert f'{layers["conv1"]["relu_macs"]:,}' in printed
  # 22 row taps and column taps reach inside; the stem has 2 channels.
  assert stored['macs']['mean'] == 22 * 22 * 2
  assert stored['macs']['deviation'] == 0 < stored['accumulates']['deviation']
  energy = result.energy_joules
  assert energy.mean == pytest.approx(
    4.6e-12 * result.macs.mean + 0.9e-12 * result.accumulates.mean
  )
  assert energy.minimum < energy.mean < energy.maximum
  assert result.relu_macs == sum(x['relu_macs'] for x in layers.values())
