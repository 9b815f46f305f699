"""Additions to a plain recipe, one at a time and some together.

With 200 training samples: `study recipe` for images, `study recipe:events` for
moving digits. A part of the training samples chooses among the additions; the
test samples only report.
"""

from mlf_jax.errors import UserError
from mlf_jax.studies import Study, measures

BOTH = {
  'plain': {},
  '+ label smoothing': {'label_smoothing': 0.1},
  '+ TET': {'loss': 'tet'},
  '+ random timesteps': {'random_time_steps': True},
  '+ averaged weights': {'ema_decay': 0.98},
  '+ learned thresholds and decay': {'unit.name': 'learned_mlf'},
  '+ TEBN': {'model.normalization': 'tebn'},
  '+ mix-up': {'augment.mixup': 0.2},
  '+ TET, TEBN': {'loss': 'tet', 'model.normalization': 'tebn'},
  '+ TET, TEBN, learned thresholds and decay': {
    'loss': 'tet',
    'model.normalization': 'tebn',
    'unit.name': 'learned_mlf',
  },
}
IMAGES = {
  '+ cut-mix': {'augment.cutmix': 1.0},
  '+ cutout': {'augment.cutout': 2},
}
EVENTS = {
  '+ translation': {'augment.translation': 2},
  '+ rotation': {'augment.rotation': 15.0},
  '+ shear': {'augment.shear': 15.0},
  '+ cutout': {'augment.cutout': 8},
  '+ time shift': {'augment.time_shift': 2},
}


def get_study(data='images'):
  if data not in ('images', 'events'):
    raise UserError(f'the variant must be images or events, got {data!r}')
  modern, own = ('digits', IMAGES), ('moving_digits', EVENTS)
  config, additions = modern if data == 'images' else own
  return Study(
    question='Which addition to the recipe helps with few training samples?',
    cells=BOTH | additions,
    measures=(measures.chosen_accuracy,),
    config=config,
    fields={
      'data.validation': 0.2,
      'data.train_samples': 200,
      'num_epochs': 60,
      'eval_every_epochs': 10.0,
    },
  )
