"""Starts a run from the weights of another one."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

import flax
import numpy as np

from mlf_jax.errors import UserError
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.state import TrainState


def with_weights_of(
  state: TrainState,
  source: str | os.PathLike,
  num_classes: int,
  say: Callable[[str], None] = print,
) -> TrainState:
  """Puts the weights and running statistics of a checkpoint into a state.

  Averaged weights are taken if the other run kept them. Where the last axis has
  as many entries as there are classes, and the number of classes differs, what
  was drawn is kept: that is the last layer.

  Args:
    state: the state before the first step.
    source: directory of the other run, whose best checkpoint is taken, or one
      of its checkpoints, `WORKDIR/checkpoints/STEP`.
    num_classes: number of classes of the network.
    say: gets a line about what was taken.

  Returns:
    The state, otherwise as it was, whose buffers must not be donated.

  Raises:
    UserError: there is no such checkpoint, or it is of another network.
  """
  place = pathlib.Path(source).expanduser()
  which = 'best'
  if place.name.isdecimal() and (place / 'state').is_dir():
    place, which = place.parent, int(place.name)
  else:
    place = place / 'checkpoints'
  if not place.is_dir():
    raise UserError(
      f'config.init_from {source} is neither the workdir of a run with '
      'checkpoints nor one of them, WORKDIR/checkpoints/STEP'
    )
  with CheckpointStore(place, move_corrupt=False) as store:
    found = store.read(which)
  if found is None:
    raise UserError(f'config.init_from {source} has no checkpoint yet')
  step, arrays, _ = found
  variables = {
    'params': arrays.get('ema_params') or arrays['params'],
    'batch_stats': arrays.get('batch_stats') or {},
  }
  state, kept = _merged(
    state, variables, num_classes, f'config.init_from {source}'
  )
  drawn = f'; drawn anew for {num_classes} classes: {", ".join(kept)}'
  say(f'weights of step {step} in {place}' + drawn * bool(kept))
  return state


def with_variables(
  state: TrainState, variables: Mapping[str, Mapping], source: str
) -> TrainState:
  """Puts weights and running statistics into a state.

  Args:
    state: the state before the first step.
    variables: `params` and `batch_stats`, all of them.
    source: where they come from, for messages.

  Raises:
    UserError: they are those of another network.
  """
  return _merged(state, variables, 0, source)[0]


def _merged(state, variables, num_classes, source):
  """State with the variables, and the names of those that were kept."""
  params, kept = _merge(state.params, variables['params'], num_classes, source)
  batch_stats, _ = _merge(
    state.batch_stats, variables['batch_stats'], 0, source
  )
  state = dataclasses.replace(
    state,
    params=params,
    batch_stats=batch_stats,
    ema_params=None if state.ema_params is None else params,
  )
  return state, kept


def _merge(drawn, stored, num_classes, source):
  """Arrays of `stored` in the structure of `drawn`, and which were kept."""
  here = flax.traverse_util.flatten_dict(drawn, sep='/')
  there = flax.traverse_util.flatten_dict(stored, sep='/')
  merged, kept = {}, []
  for name in [*here, *(there.keys() - here.keys())]:
    shape, other = (
      list(tree[name].shape) if name in tree else 'missing'
      for tree in (here, there)
    )
    if shape == other:
      merged[name] = np.asarray(there[name], here[name].dtype)
    elif (
      'missing' not in (shape, other)
      and shape[-1:] == [num_classes]
      and shape[:-1] == other[:-1]
    ):
      merged[name] = here[name]
      kept.append(name)
    else:
      raise UserError(
        f'{source} is of another network: {name} is {other} '
        f'there and {shape} here'
      )
  return flax.traverse_util.unflatten_dict(merged, sep='/'), kept
