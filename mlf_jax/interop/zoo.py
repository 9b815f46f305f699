"""Trained networks that come with the package: their files, and new ones."""

import json
import pathlib
from typing import Any, NamedTuple

import flax
import ml_collections
import numpy as np

from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.errors import UserError, unknown
from mlf_jax.training import config as config_lib
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.evaluation import restore

_FOLDER = pathlib.Path(__file__).parents[1] / 'zoo'
_WEIGHTS, _ABOUT = 'weights.npz', 'card.json'
# A file of weights may not be larger: the package is downloaded by everyone.
_MOST_BYTES = 1_000_000


class Entry(NamedTuple):
  """A network of the zoo.

  Attributes:
    config: the configuration that it was trained with.
    preprocessing: what comes before and after the network.
    variables: `params` and `batch_stats`, arrays of NumPy.
    step: training steps after which the weights were saved.
    card: data, split, command, seed, accuracy, licence of the data, versions.
  """

  config: ml_collections.ConfigDict
  preprocessing: Preprocessing
  variables: dict[str, Any]
  step: int
  card: dict[str, Any]


def names() -> list[str]:
  """Names of the networks, for `mlf_jax.load('zoo:NAME')`."""
  return sorted(path.parent.name for path in _FOLDER.glob(f'*/{_ABOUT}'))


def entry(name: str) -> Entry:
  """Reads a network.

  Raises:
    UserError: there is no network of this name.
  """
  if name not in names():
    raise unknown('zoo', name, names())
  folder = _FOLDER / name
  card = json.loads((folder / _ABOUT).read_text())
  with np.load(folder / _WEIGHTS, allow_pickle=False) as arrays:
    variables = flax.traverse_util.unflatten_dict(dict(arrays), sep='/')
  return Entry(
    config_lib.from_json(card['config']),
    Preprocessing.from_json(card['preprocessing']),
    variables,
    card['step'],
    card,
  )


def pack(
  workdir: str, name: str, licence: str, folder: pathlib.Path = _FOLDER
) -> pathlib.Path:
  """Makes a network of the zoo from the last checkpoint of a run.

  Args:
    workdir: directory of a finished run.
    name: name of the network.
    licence: licence of the data, and where they are from.
    folder: folder of all networks.

  Returns:
    The folder of the network: `weights.npz`, arrays under the paths of their
    variables, and `card.json`.

  Raises:
    UserError: the run is not finished, or the weights take more than 1 MB.
  """
  path = pathlib.Path(workdir).expanduser()
  restored = restore(path, 'last')
  result = workdir_lib.read_json(path / 'result.json')
  preprocessing = workdir_lib.read_json(path / 'preprocessing.json')
  arrays = flax.traverse_util.flatten_dict(
    restored.state.eval_variables, sep='/'
  )
  target = folder / name
  target.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(target / _WEIGHTS, **arrays)
  if (size := (target / _WEIGHTS).stat().st_size) > _MOST_BYTES:
    (target / _WEIGHTS).unlink()
    raise UserError(
      f'the weights of {workdir} take {size:,} bytes, more than the '
      f'{_MOST_BYTES:,} that a network in the package may'
    )
  card = {
    'network': f'{restored.config.model.name}, T = '
    f'{restored.config.model.time_steps}',
    'parameters': restored.state.num_parameters,
    'data': result['data'],
    'split': result['split_name'],
    'split_hash': result['split_hash'],
    'seed': result['seed'],
    'step': restored.step,
    'test_accuracy': result['test/accuracy'],
    'data_licence': licence,
    'device': result['device'],
    'versions': result['versions'],
    'preprocessing': preprocessing,
    'config': config_lib.as_json(restored.config),
  }
  workdir_lib.write_json(target / _ABOUT, card)
  return target
