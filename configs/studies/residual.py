"""Residual blocks, with both ends of a projection shortcut."""

from mlf_jax.studies import Study, measures


def get_study():
  cells = {
    f'{block}, {end} shortcut': {
      'model.residual': block,
      'model.shortcut': end,
    }
    for block in ('ds', 'plain', 'sew', 'ms')
    for end in ('mlf', 'norm')
  }
  return Study(
    question='Which residual block trains best?',
    cells=cells,
    measures=(measures.test_accuracy, measures.network_activity),
    fields={
      'model.depth': 20,
      'model.widths': (8, 16, 32),
      'optimizer.name': 'adamw',
      'optimizer.learning_rate': 0.003,
      'optimizer.weight_decay': 0.01,
      'num_epochs': 15,
    },
  )
