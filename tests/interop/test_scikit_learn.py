"""The classifier of scikit-learn, held to scikit-learn's own checks."""

import jax
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import mlf_jax
from tests import quick


@pytest.fixture(scope='module', autouse=True)
def quickly():
  """Quick compilation; optax's schedules mix integers and floats."""
  yield from quick.of_the_library()


@pytest.fixture(autouse=True)
def promotion(strict_promotion):
  with jax.numpy_dtype_promotion('standard'):
    yield


def tiny(**parameters):
  return mlf_jax.SpikingClassifier(
    **{
      'widths': (6, 6, 6),
      'time_steps': 2,
      'thresholds': (0.6, 1.6),
      'batch_size': 8,
      'num_epochs': 5,
      'random_state': 0,
      **parameters,
    }
  )


@pytest.mark.slow
@parametrize_with_checks([tiny()])
def test_check_of_scikit_learn(estimator, check):
  check(estimator)
