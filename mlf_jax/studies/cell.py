"""One run of a study: trained and measured, in a directory of its own."""

import hashlib
import pathlib
from collections.abc import Mapping

import ml_collections

from mlf_jax.studies.declaration import Study
from mlf_jax.training import config as config_lib
from mlf_jax.training import workdir as workdir_lib

_MEASURED = 'measured.json'


def default_workdir(
  name: str, configs: Mapping[str, ml_collections.ConfigDict]
) -> pathlib.Path:
  """A directory that no other study has, nor this one with other fields.

  Args:
    name: name of the study.
    configs: configuration of each cell.
  """
  prints = map(config_lib.fingerprint, configs.values())
  digest = hashlib.sha256('-'.join(prints).encode()).hexdigest()[:8]
  return pathlib.Path('runs') / f'study-{name}-{digest}'


def directory(workdir: pathlib.Path, cell: str, seed: int) -> pathlib.Path:
  """Directory of a run in that of its study."""
  return workdir / cell.replace(' ', '_') / f'seed{seed}'


def measured(run: pathlib.Path, study: Study) -> dict | None:
  """Reads the measurements of a finished run.

  Returns:
    The content of `measured.json`: `values` by name, or why the training
    `diverged`. None if the run has to be trained or measured first.
  """
  path = run / _MEASURED
  if not path.exists():
    return None
  stored = workdir_lib.read_json(path)
  return stored if stored['measures'] == _names(study) else None


def train_and_measure(
  study: Study, config: ml_collections.ConfigDict, run: pathlib.Path
) -> None:
  """Trains a run, or continues it, and writes what is measured of it.

  Args:
    study: says what is measured.
    config: configuration of the run.
    run: directory of the run.

  Raises:
    UserError: configuration, data or directory are wrong.
    Interrupted: a signal arrived; the same call continues.
  """
  # Only now: it takes seconds to import.
  from mlf_jax.training import Diverged, train

  outcome = {'measures': _names(study)}
  try:
    result = train(config, workdir=run)
  except Diverged as error:
    outcome['diverged'] = str(error)
  else:
    outcome['wall_seconds'] = result['wall_seconds']
    outcome['values'] = {}
    for measure in study.measures:
      outcome['values'] |= measure(run, result)
  workdir_lib.write_json(run / _MEASURED, outcome)


def _names(study):
  return [measure.__name__ for measure in study.measures]
