from mlf_jax.training import ranking


def test_validation_samples_rank_before_test_samples():
  assert ranking.accuracy({'test/accuracy': 0.5}) == 0.5
  both = {'test/accuracy': 0.5, 'validation/accuracy': 0.25}
  assert ranking.accuracy(both) == 0.25
  assert ranking.accuracy({}) is ranking.accuracy({'test/accuracy': None})


def test_the_best_is_the_latest_of_the_highest():
  steps = [(1, 0.5), (2, 0.75), (3, 0.75), (4, float('nan')), (5, 0.0)]
  lines = [{'step': step, 'test/accuracy': value} for step, value in steps]
  assert ranking.best_of(lines)['step'] == 3
