"""The directory of a run: which configuration owns it and what it holds."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from mlf_jax.data import io
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.errors import UnknownNameError, UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import ranking

_PREPROCESSING = 'preprocessing.json'
# Fields by which a run may become longer.
_LENGTH = 'num_epochs', 'num_steps'


def default_workdir(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Returns a directory that no other configuration has."""
  name = f'{config.data.name}-{config_lib.fingerprint(config)}'
  return pathlib.Path('runs') / name


def finished_result(
  workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> dict | None:
  """Returns the result if the configuration is trained to its end there.

  Args:
    workdir: the directory; it need not exist.
    config: the configuration to train.

  Returns:
    The content of `result.json`; None if there is something left to train,
    also if the configuration asks for another number of steps.

  Raises:
    UserError: the directory belongs to a configuration that differs in more
      than the number of steps, and the fields are listed, or is no directory.
  """
  if workdir.exists() and not workdir.is_dir():
    raise UserError(f'--workdir {workdir} is a file; name a directory')
  path = workdir / 'config.json'
  if not path.exists():
    for name in ('metrics.jsonl', 'checkpoints'):
      if (workdir / name).exists():
        raise UserError(
          f'{workdir} holds {name} but no config.json, so it is not known '
          'whose run it is; choose another --workdir'
        )
    return None
  ours, stored = config_lib.as_json(config), read_json(path)
  differences = config_lib.differing_fields(ours, stored)
  of_length = {n: stored[n] for n in _LENGTH if n in stored}
  others = config_lib.differing_fields(ours | of_length, stored)
  if others and all(line.startswith('config.data.digest') for line in others):
    raise UserError(
      f'{workdir} is a run on other samples: your files or arrays have changed '
      'since; choose another --workdir'
    )
  if others:
    raise UserError(
      f'{workdir} is a run of another configuration: '
      f'{"; ".join(differences)}; choose another --workdir'
    )
  if differences:
    return None
  result = workdir / 'result.json'
  return read_json(result) if result.exists() else None


@contextlib.contextmanager
def claimed_workdir(
  workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[dict | None]:
  """Makes the directory, for this process alone until the context ends.

  The operating system releases it even if the process is killed.

  Yields:
    The result, if another process finished the run in the meantime.

  Raises:
    UserError: it cannot be written, or another process trains in it.
  """
  with io.exclusive(
    workdir, 'the workdir', 'is training', 'choose another with --workdir=DIR'
  ):
    # Only now can no other process write it any more.
    result = finished_result(workdir, config)
    path, ours = workdir / 'config.json', config_lib.as_json(config)
    if not path.exists() or read_json(path) != ours:
      # The result is that of a shorter run.
      (workdir / 'result.json').unlink(missing_ok=True)
      write_json(path, ours)
    yield result


def stored_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
  """The configuration of a run.

  Raises:
    UserError: this is no directory of a run, or one of another version or
      with a part that is not registered.
  """
  path = pathlib.Path(workdir).expanduser() / 'config.json'
  try:
    return config_lib.from_json(read_json(path))
  except UnknownNameError as error:
    raise UserError(
      f'{path}: {error}; a part of your own has to be registered first: name '
      'the file that does, --config=FILE, or import it in your program'
    ) from None


def write_preprocessing(
  workdir: pathlib.Path, preprocessing: Preprocessing
) -> None:
  """Writes `preprocessing.json`: what comes before and after the network.

  Raises:
    UserError: it cannot be written.
  """
  write_json(workdir / _PREPROCESSING, dataclasses.asdict(preprocessing))


def stored_preprocessing(
  workdir: str | os.PathLike,
) -> Preprocessing | None:
  """What `write_preprocessing` wrote; None if it is not there.

  Raises:
    UserError: it is damaged.
  """
  path = pathlib.Path(workdir).expanduser() / _PREPROCESSING
  if not path.exists():
    return None
  try:
    return Preprocessing.from_json(read_json(path))
  except TypeError as error:
    raise UserError(f'{path} is damaged ({error})') from None


def require_visible(workdir: pathlib.Path) -> None:
  """Checks that this process sees the directory that the first one made.

  Raises:
    UserError: it does not.
  """
  if not (workdir / 'config.json').exists():
    raise UserError(
      f'{workdir} of process 0 is not there; all processes of a run need a '
      '--workdir on a file system that they share'
    )


def write_result(workdir: pathlib.Path, result: Mapping[str, Any]) -> dict:
  """Writes `result.json`, with the best evaluation of the run beside the last.

  Args:
    workdir: directory of the run.
    result: what to write, with `steps` and `test/accuracy`.

  Returns:
    The content of the file.

  Raises:
    UserError: it cannot be written.
  """
  best = ranking.best_of(
    [*ranking.evaluations(workdir), {**result, 'step': result['steps']}]
  )
  names = ('validation/accuracy', 'test/accuracy')
  accuracies = {f'best/{name}': best[name] for name in names if name in best}
  chosen_on = 'validation' if 'validation/accuracy' in best else 'test'
  write_json(
    workdir / 'result.json',
    {
      **result,
      'best/step': best['step'],
      **accuracies,
      'best/chosen_on': f'{chosen_on} set',
    },
  )
  return read_json(workdir / 'result.json')


def json_text(value: Any, indent: int | None = None) -> str:
  """Returns JSON, which has no NaN and no infinity: they become null."""
  # Python writes and reads NaN and Infinity, which are no JSON.
  finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
  return json.dumps(finite, indent=indent)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file as a whole or, if that fails, not at all.

  Raises:
    UserError: the file cannot be written.
  """
  write_bytes(path, (json_text(value, indent=2) + '\n').encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes a file as a whole or, if that fails, not at all.

  Raises:
    UserError: the file cannot be written.
  """
  with write_errors(path):
    io.write_atomically(path, content)


@contextlib.contextmanager
def write_errors(path: pathlib.Path) -> Iterator[None]:
  """Turns a full disk or a missing permission into a one-line error."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {error.strerror or error}'
    ) from error


def read_json(path: pathlib.Path) -> dict:
  """Reads a JSON object.

  Raises:
    UserError: the file is missing or damaged.
  """
  try:
    content = json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    raise UserError(f'{path} does not exist; is this the workdir?') from None
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from None
  except ValueError as error:
    hint = ''
    if path.name == 'result.json':
      hint = '; remove it, and the command that trained here writes it again'
    raise UserError(f'{path} is damaged ({error}){hint}') from None
  if not isinstance(content, dict):
    raise UserError(f'{path} holds no JSON object')
  return content
