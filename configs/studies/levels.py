"""Levels of the MLF unit: K = 1 to 4."""

from mlf_jax.studies import Study, measures

THRESHOLDS = (0.6, 1.6, 2.6, 3.6)


def get_study():
  return Study(
    question='Do more levels train better, and wake dormant units?',
    cells={f'K={k}': {'unit.thresholds': THRESHOLDS[:k]} for k in (1, 2, 3, 4)},
    measures=(measures.test_accuracy, measures.network_activity),
    fields={
      'data.train_samples': 200,
      'num_epochs': 60,
      'eval_every_epochs': 20.0,
    },
  )
