"""Shapes and widths of the surrogate derivative."""

from mlf_jax.studies import Study, measures


def get_study():
  cells = {
    f'{shape}, width {width:g}': {
      'unit.surrogate': shape,
      'unit.width': width,
    }
    for shape in ('rectangular', 'triangular', 'sigmoid')
    for width in (0.5, 1.0)
  }
  return Study(
    question='Which surrogate derivative trains best?',
    cells=cells,
    measures=(measures.test_accuracy, measures.network_activity),
    fields={
      'data.train_samples': 200,
      'num_epochs': 60,
      'eval_every_epochs': 20.0,
    },
  )
