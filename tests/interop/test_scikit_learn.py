"""The classifier, in the tools of scikit-learn and held to its checks."""

import pathlib
import pickle
import re

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
  estimator_checks_generator,
  parametrize_with_checks,
)

import mlf_jax
from mlf_jax import UserError
from mlf_jax.training import in_memory
from tests import quick

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'scikit-learn.md'
EXPECTED_TO_FAIL = {
  'check_sample_weight_equivalence_on_dense_data': (
    'a sample twice in X is two samples of a batch, for the order of the '
    'samples and for the statistics of tdBN; a weight of 2 is none'
  )
}
# Checks that train nothing.
QUICK_CHECKS = {
  'check_estimator_cloneable',
  'check_estimators_unfitted',
  'check_no_attributes_set_in_init',
  'check_parameters_default_constructible',
  'check_get_params_invariance',
  'check_set_params',
  'check_complex_data',
  'check_estimators_empty_data_messages',
  'check_estimator_sparse_array',
  'check_estimator_sparse_matrix',
  'check_fit1d',
  'check_requires_y_none',
  'check_classifiers_regression_target',
}


@pytest.fixture(scope='module', autouse=True)
def quickly():
  """Programs compiled quickly are not for the tests that follow."""
  yield from quick.of_the_library()
  in_memory._programs.cache_clear()


@pytest.fixture(autouse=True)
def promotion(strict_promotion):
  """Optax's schedules mix integers and floats."""
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


@pytest.fixture(scope='module')
def samples():
  """24 samples of six features, whose mean tells their label."""
  numbers = np.arange(24) % 3
  X = np.random.default_rng(0).normal(size=(24, 6)) + 2 * numbers[:, None]
  return X, np.array(['left', 'middle', 'right'])[numbers]


def images(**parameters):
  """All tests that train use its network, so that it is compiled once."""
  return tiny(image_shape=(2, 3), **parameters)


def same(one, other):
  """True if they say the same of any sample, to the last bit."""
  X = np.random.default_rng(1).normal(size=(10, 6))
  return np.array_equal(one.decision_function(X), other.decision_function(X))


def test_it_learns_and_says_so(samples, capsys):
  X, y = samples
  classifier = images(num_epochs=10, verbose=1).fit(X, y)
  assert classifier.score(X, y) > 0.8
  assert classifier.loss_curve_[-1] < classifier.loss_curve_[0]
  assert classifier.classes_.tolist() == ['left', 'middle', 'right']
  assert (classifier.n_features_in_, classifier.sample_shape_) == (6, (2, 3, 1))
  np.testing.assert_allclose(classifier.predict_proba(X).sum(1), 1)
  lines = capsys.readouterr().out.splitlines()
  assert lines[9].startswith('epoch 10/10  loss ') and len(lines) == 10


def test_the_seed_decides(samples):
  X, y = samples
  first = images().fit(X, y)
  assert same(first, images().fit(X, y))
  assert same(first, images().fit(X, np.unique(y, return_inverse=True)[1]))
  assert same(first, clone(first).fit(X, y))
  assert same(first, pickle.loads(pickle.dumps(first)))
  assert not same(first, images(random_state=1).fit(X, y))
  # Images are the same samples; scikit-learn would call their rows features.
  four = images().fit(X.reshape(24, 2, 3, 1), y)
  assert same(first, four) and not hasattr(four, 'n_features_in_')


def test_weights_of_samples(samples):
  X, y = samples
  weights = np.arange(24) % 4.0
  left_out = images().fit(X[weights > 0], y[weights > 0], weights[weights > 0])
  assert same(images().fit(X, y, weights), left_out)
  assert not same(images().fit(X[weights > 0], y[weights > 0]), left_out)
  # Without weight decay, twice the loss is twice the learning rate.
  twice = images(learning_rate=0.05, weight_decay=0.0).fit(X, y, np.full(24, 2))
  assert same(images(weight_decay=0.0).fit(X, y), twice)


def test_validation_keeps_the_best_epoch(samples):
  X, y = samples
  # A learning rate that does not depend on the number of epochs.
  parameters = {
    'validation': 0.25,
    'learning_rate': 0.3,
    'config': {'schedule.name': 'constant', 'schedule.warmup_epochs': 0},
  }
  long = images(num_epochs=6, **parameters).fit(X, y)
  scores = long.validation_scores_
  best = max(range(6), key=lambda epoch: (scores[epoch], epoch))
  assert len(scores) == 6 and best < 5
  assert same(long, images(num_epochs=best + 1, **parameters).fit(X, y))


def test_warm_start_goes_on_from_the_weights(samples):
  X, y = samples
  first = images().fit(X, y)
  again = clone(first).set_params(warm_start=True).fit(X, y)
  # The updates are lost in rounding.
  again.set_params(learning_rate=1e-30, weight_decay=0.0).fit(X, y)
  leaves = jax.tree.leaves(again.variables_['params'])
  expected = jax.tree.leaves(first.variables_['params'])
  assert all(map(np.array_equal, leaves, expected))
  with pytest.raises(UserError, match='warm_start needs the classes'):
    again.fit(X, np.char.upper(y))


def test_a_search_in_a_pipeline_compiles_one_network(samples):
  X, y = samples
  pipeline = make_pipeline(StandardScaler(), images(num_epochs=2))
  search = GridSearchCV(
    pipeline,
    {'spikingclassifier__learning_rate': np.array([0.01, 0.1])},
    cv=3,
    error_score='raise',
  )
  misses = in_memory._programs.cache_info().misses
  search.fit(X, y)
  assert in_memory._programs.cache_info().misses <= misses + 1
  assert search.best_estimator_.predict(X).shape == (24,)
  config = search.best_estimator_[-1].config_
  programs = in_memory.programs(config, (2, 3, 1), 3)
  assert programs.train_step._cache_size() == 1


@pytest.mark.parametrize(
  ('parameters', 'message'),
  [
    ({'depth': 9}, 'depth must be 6n'),
    ({'depth': 'eight'}, "depth must be of type int, got 'eight'"),
    ({'widths': (4, 4)}, 'one width per stage'),
    ({'thresholds': ()}, 'threshold'),
    ({'decay': 2.0}, 'decay'),
    ({'learning_rate': 0}, 'learning_rate must be above 0'),
    ({'num_epochs': 0}, 'num_epochs must be at least 1'),
    ({'batch_size': 2.5}, 'batch_size must be of type int'),
    ({'validation': 1.0}, 'validation must be at least 0 and below 1'),
    ({'image_shape': (2, 2)}, 'needs 4 features, but X has 6'),
    ({'image_shape': 6}, 'image_shape must be .height, width.'),
    ({'config': {'optimizer.nam': 'adamw'}}, "did you mean 'optimizer.name'"),
    ({'config': {'optimizer.name': 'adam'}}, 'adamw'),
    ({'config': {'model.depth': 8}}, 'field of config'),
    ({'config': {'num_steps': 8}}, 'field of config'),
    ({'config': {'augment.crop_padding': 9}}, 'crop_padding must be at most 2'),
    ({'config': ['model']}, 'config must map'),
  ],
)
def test_a_wrong_parameter_is_an_error_of_fit(samples, parameters, message):
  classifier = images().set_params(**parameters)
  with pytest.raises(UserError, match=message) as error:
    classifier.fit(*samples)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((24, 2, 3), 'X must be .samples, features.* got shape'),
    ((24, 3, 2, 1), 'of shape .2, 3, 1., got shape'),
    ((24, 6, 1, 1, 1), 'got shape'),
  ],
)
def test_wrong_samples(samples, shape, message):
  X, y = samples
  with pytest.raises(UserError, match=message):
    images().fit(X.reshape(shape), y)


def test_wrong_frames_weights_and_order(samples):
  X, y = samples
  with pytest.raises(UserError, match=r'time_steps is 2.* 3 frames'):
    tiny().fit(X.reshape(24, 3, 2, 1, 1), y)
  with pytest.raises(ValueError, match='egative'):
    images().fit(X, y, -np.ones(24))
  with pytest.raises(ValueError, match='weight'):
    images().fit(X, y, np.zeros(24))
  with pytest.raises(NotFittedError):
    images().predict(X)
  with pytest.raises(NotFittedError):
    _ = images().model_


def test_checks_of_scikit_learn_that_train_nothing():
  done = set()
  for estimator, check in estimator_checks_generator(tiny()):
    if check.func.__name__ in QUICK_CHECKS:
      check(estimator)
      done.add(check.func.__name__)
  assert done == QUICK_CHECKS


@pytest.mark.slow
@parametrize_with_checks(
  [tiny()], expected_failed_checks=lambda _: EXPECTED_TO_FAIL
)
def test_check_of_scikit_learn(estimator, check):
  check(estimator)


@pytest.mark.slow
def test_frames_are_seen_in_their_order():
  """Which of two frames comes first is the label."""
  labels = np.arange(40) % 2
  frames = np.random.default_rng(0).integers(0, 3, (40, 2, 4, 4, 1), np.uint8)
  frames[np.arange(40), labels] += 3
  classifier = tiny(num_epochs=20).fit(frames, labels)
  assert classifier.score(frames, labels) > 0.9
  assert classifier.score(frames[:, ::-1], labels) < 0.1
  np.testing.assert_array_equal(classifier.scaling_.mean, 0)
  floats = tiny(num_epochs=20).fit(frames.astype(float), labels)
  np.testing.assert_allclose(
    floats.decision_function(frames), classifier.decision_function(frames)
  )


@pytest.mark.slow
def test_other_precisions_optimisers_and_averages(samples):
  X, y = samples
  for config in (
    {'model.dtype': 'float64'},
    {'optimizer.name': 'adamw', 'ema_decay': 0.5, 'augment.flip': True},
  ):
    classifier = images(num_epochs=20, learning_rate=0.01, config=config)
    assert classifier.fit(X, y).score(X, y) > 0.6
    assert same(classifier, pickle.loads(pickle.dumps(classifier)))


@pytest.mark.slow
def test_processes_of_joblib(samples):
  X, y = samples
  alone, together = (
    cross_val_score(images(), X, y, cv=2, n_jobs=jobs, error_score='raise')
    for jobs in (1, 2)
  )
  np.testing.assert_allclose(alone, together, atol=0.1)


@pytest.mark.slow
def test_python_of_the_page_runs():
  names = {}
  for block in re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL):
    exec(compile(block, 'docs/scikit-learn.md', 'exec'), names)
  assert names['search'].score(names['X_test'], names['y_test']) > 0.9
  classifier = names['classifier']
  assert len(classifier.validation_scores_) == 10
  np.testing.assert_allclose(
    names['logits'],
    classifier.decision_function(
      names['search'].best_estimator_[:-1].transform(names['X_test'])
    ),
    rtol=1e-3,
    atol=1e-3,
  )
