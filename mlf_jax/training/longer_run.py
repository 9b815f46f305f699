"""A run that goes on beyond the end that it was given first."""

import pathlib

import ml_collections
import numpy as np

from mlf_jax.errors import UserError
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.optimizer import make_schedule
from mlf_jax.training.workdir import stored_config


def require_extendable(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, steps_per_epoch: int
) -> None:
  """Checks that the run in a directory would have begun in the same way.

  Args:
    workdir: directory of the run; it need not exist.
    config: the configuration to go on with, which differs from that of the run
      in its length alone.
    steps_per_epoch: training steps per epoch.

  Raises:
    UserError: the run would become shorter, or the learning rates of its steps
      would have been others.
  """
  if not (workdir / 'config.json').exists():
    return
  earlier = stored_config(workdir)
  lengths = [
    Timeline(each, steps_per_epoch).num_steps for each in (earlier, config)
  ]
  if lengths[1] < lengths[0]:
    raise UserError(
      f'{workdir} is a run of {lengths[0]:,} steps, which cannot become one of '
      f'{lengths[1]:,}; choose another --workdir'
    )
  steps = np.arange(lengths[0])
  rates = [
    np.broadcast_to(make_schedule(each, steps_per_epoch, n)(steps), steps.shape)
    for each, n in zip((earlier, config), lengths, strict=True)
  ]
  if (rates[0] != rates[1]).any():
    raise UserError(
      f'{workdir} is a run of {lengths[0]:,} steps; in one of {lengths[1]:,} '
      'they would have had other learning rates (config.schedule.name '
      f'{config.schedule.name!r}); to train on from its weights: '
      f'--config.init_from={workdir} and another --workdir'
    )
