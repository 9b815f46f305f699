"""The MLF unit beside its relatives, in the same network."""

from mlf_jax.layers import UNITS
from mlf_jax.studies import Study


def get_study():
  return Study(
    question='Which spiking unit trains best, all else alike?',
    cells={name: {'unit.name': name} for name in UNITS},
    fields={
      'data.train_samples': 200,
      'num_epochs': 60,
      'eval_every_epochs': 20.0,
    },
  )
