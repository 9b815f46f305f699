"""An inspection holds the numbers that the function of each part returns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlf_jax import activity
from mlf_jax.activity.capture import units_hook
from mlf_jax.analysis.inspection import inspect_run
from mlf_jax.errors import UserError
from mlf_jax.training import restore
from tests import quick
from tests.analysis import runs

SHAPE = (8, 8, 1)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('inspected')
  dataset = runs.untrained(directory, SHAPE)
  return inspect_run(directory, dataset), restore(directory, dataset=dataset)


def test_an_unfinished_run_is_measured_on_every_test_sample(run):
  inspected, restored = run
  assert (inspected.step, inspected.result, inspected.unobserved) == (3, {}, '')
  # Half a line, of a killed process, is left out.
  assert [line['step'] for line in inspected.metrics] == [2, 3]
  assert inspected.parameters == restored.state.num_parameters
  assert inspected.logits.shape == (2, runs.SAMPLES, 4)
  for layer in inspected.activity.values():
    assert layer.samples == runs.SAMPLES


def test_logits_gradient_and_activity_are_those_of_the_network(run):
  inspected, (_, model, _, state) = run
  dataset, variables = inspected.dataset, state.eval_variables
  inputs = dataset.normalize(jnp.asarray(dataset.test.images), 'float32')
  labels = jax.nn.one_hot(dataset.test.labels, 4)

  def by_hand(params):
    logits, observed = activity.capture(
      model,
      {**variables, 'params': params},
      inputs,
      units_hook(lambda seen: seen),
    )
    losses = optax.softmax_cross_entropy(logits, labels)
    return losses.mean(), (logits, observed)

  gradient, (logits, observed) = quick.jit(jax.grad(by_hand, has_aux=True))(
    variables['params']
  )
  np.testing.assert_allclose(inspected.mean_logits, logits, atol=1e-5)
  np.testing.assert_array_equal(inspected.predictions, logits.argmax(-1))
  order = activity.depth_order(model, inputs)
  norms = activity.gradient_norms(gradient, order)
  assert [*inspected.gradient_norms] == [*norms]
  for path, norm in norms.items():
    np.testing.assert_allclose(inspected.gradient_norms[path], norm, rtol=1e-4)

  assert [*inspected.activity] == [*inspected.first_sample]
  assert [path for path in order if path in observed] == [*inspected.activity]
  for path, seen in observed.items():
    first = inspected.first_sample[path]
    np.testing.assert_allclose(
      first.membrane_potential, seen.membrane_potential[:, :, 0], atol=1e-5
    )
    layer = inspected.activity[path]
    np.testing.assert_array_equal(
      layer.spikes, seen.fired.sum((0, *range(2, seen.fired.ndim)))
    )
    assert layer.membranes.sum() == layer.pairs * 2


def test_a_network_without_spiking_units_says_so(tmp_path):
  dataset = runs.untrained(tmp_path, (2, 6, 6, 2), model='small')
  inspected = inspect_run(tmp_path, dataset)
  assert inspected.activity == {} and inspected.first_sample == {}
  assert 'SpikingUnits' in inspected.unobserved
  # It cannot tell its logits of each of its two timesteps.
  assert not inspected.knows_every_timestep
  assert inspected.logits.shape == (1, runs.SAMPLES, 4)
  assert all(norm > 0 for norm in inspected.gradient_norms.values())


def test_units_that_cannot_be_observed_leave_the_rest(tmp_path):
  dataset = runs.untrained(tmp_path, SHAPE, unit='relu')
  inspected = inspect_run(tmp_path, dataset)
  assert inspected.activity == {} and inspected.edges is None
  assert 'ReLU has no method observe' in inspected.unobserved
  assert inspected.logits.shape == (2, runs.SAMPLES, 4)
  assert inspected.gradient_norms


def test_a_directory_without_a_run_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'config\.json does not exist'):
    inspect_run(tmp_path)
