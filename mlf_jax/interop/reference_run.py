"""Weights of the published PyTorch code as a run, and of a run as weights."""

import io
import os
import pathlib

import jax
import ml_collections
import numpy as np
import optax

from mlf_jax.errors import UserError
from mlf_jax.interop import torch as reference
from mlf_jax.interop.published import require_published
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data, initial_weights
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.optimizer import make_optimizer
from mlf_jax.training.state import init_state


def import_reference(
  path: str | os.PathLike,
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
) -> None:
  """Makes a run of published weights, which has not been trained yet.

  Every command that takes a run takes it, training included, which then starts
  from these weights. Nothing in the file is run.

  Args:
    path: a `.pth` checkpoint, which needs PyTorch, or a `.npz` file of arrays
      under the names of such a checkpoint.
    config: the configuration of the network that the weights belong to.
    workdir: directory of the run, which must not hold one.

  Raises:
    UserError: the file cannot be read or holds other weights, or the directory
      holds a run.
  """
  config_lib.validate(config, num_devices=1)
  sample_shape, num_classes = configured_data.sample_spec(config)
  model = config_lib.build_model(config, num_classes)
  optimizer = make_optimizer(config, optax.constant_schedule(0.0))
  variables = reference.from_reference(_read(path))
  workdir = pathlib.Path(workdir).expanduser()
  if (workdir / 'config.json').exists():
    raise UserError(f'{workdir} holds a run; choose another --workdir')
  with jax.enable_x64(config_lib.is_float64(config)):
    state = init_state(
      model, optimizer, config.seed, sample_shape, config.ema_decay > 0
    )
    state = initial_weights.with_variables(state, variables, str(path))
    with (
      workdir_lib.claimed_workdir(workdir, config),
      CheckpointStore(workdir / 'checkpoints') as store,
    ):
      store.save(0, state)


def export_reference(
  net: TrainedNetwork, path: str | os.PathLike
) -> pathlib.Path:
  """Writes the weights of a network for the published PyTorch code.

  The file holds weights alone: thresholds, decay, timesteps and the kind of
  shortcut are set in that code.

  Args:
    net: the network.
    path: a file that ends in `.npz`, or in `.pth`, which needs PyTorch.

  Returns:
    The path.

  Raises:
    UserError: the network is none of the published ones, the suffix is unknown,
      PyTorch is missing, or the file cannot be written.
  """
  path, content = pathlib.Path(path).expanduser(), io.BytesIO()
  require_published(net.model, 'weights of the published code')
  if net.model.normalization != 'tdbn':
    raise UserError(
      "the published code knows the normalisation 'tdbn' alone, not "
      f'{net.model.normalization!r}'
    )
  state_dict = reference.to_reference(jax.device_get(net.variables))
  if path.suffix == '.npz':
    np.savez(content, **state_dict)
  elif path.suffix == '.pth':
    torch = reference.import_torch('writing')
    tensors = {n: torch.from_numpy(a.copy()) for n, a in state_dict.items()}
    torch.save(tensors, content)
  else:
    raise UserError(f'{path} must end in .npz or .pth')
  workdir_lib.write_bytes(path, content.getvalue())
  return path


def _read(path) -> dict[str, np.ndarray]:
  """The arrays of a file by their published names."""
  path = pathlib.Path(path).expanduser()
  if path.suffix != '.npz':
    return reference.load_pth(path)
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (OSError, ValueError, EOFError) as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'{path} cannot be read ({reason})') from error
