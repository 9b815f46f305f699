"""Networks trained with T timesteps, run with 1 to 2 T."""

from mlf_jax.studies import Study, measures


def get_study():
  cells = {f'T={t}': {'model.time_steps': t} for t in (1, 2, 4)}
  cells['T=1 to 4'] = {'model.time_steps': 4, 'random_time_steps': True}
  return Study(
    question='How accurate is a network with other timesteps than in training?',
    cells=cells,
    measures=(measures.accuracy_by_time,),
    lines='test accuracy',
  )
