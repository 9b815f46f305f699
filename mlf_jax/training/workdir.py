"""The directory of a run: whose it is and what it holds."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import ml_collections

from mlf_jax import locks
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import report


def default(config: ml_collections.ConfigDict) -> pathlib.Path:
  """A directory that no other configuration has."""
  name = f'{config.data.name}-{config_lib.fingerprint(config)}'
  return pathlib.Path('runs') / name


def check(
  workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> dict | None:
  """Whether the directory may be trained in.

  Args:
    workdir: the directory; it need not exist.
    config: the configuration to train.

  Returns:
    The result, if this configuration is finished there; else None.

  Raises:
    UserError: the directory belongs to another configuration, which is told
      field by field, or is no directory.
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
  differences = config_lib.differing_fields(
    config_lib.as_json(config), read_json(path)
  )
  if differences:
    raise UserError(
      f'{workdir} is a run of another configuration: '
      f'{"; ".join(differences)}; choose another --workdir'
    )
  result = workdir / 'result.json'
  return read_json(result) if result.exists() else None


@contextlib.contextmanager
def claim(
  workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[dict | None]:
  """Makes the directory this process's own until the end.

  The operating system gives it back even if the process is killed.

  Yields:
    The result, if another process finished the run in the meantime.

  Raises:
    UserError: it cannot be written, or another process trains in it.
  """
  with locks.exclusive(
    workdir,
    'the workdir',
    'is training',
    'choose another with --workdir=DIR',
  ):
    # Again, now that nobody else can write it.
    result = check(workdir, config)
    if not (workdir / 'config.json').exists():
      report.write_json(workdir / 'config.json', config_lib.as_json(config))
    yield result


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
    hint = (
      '; remove it, and the command that trained here writes it again'
      if path.name == 'result.json'
      else ''
    )
    raise UserError(f'{path} is damaged ({error}){hint}') from None
  if not isinstance(content, dict):
    raise UserError(f'{path} holds no JSON object')
  return content


def best(workdir: pathlib.Path) -> tuple[int, float] | None:
  """Step and accuracy of the best evaluation in `metrics.jsonl` so far."""
  scores = []
  for text in (workdir / 'metrics.jsonl').read_bytes().splitlines():
    with contextlib.suppress(ValueError):  # Half a line of a killed run.
      line = json.loads(text)
      if line.get('test/accuracy') is not None:
        scores.append((line['test/accuracy'], line['step']))
  if not scores:
    return None
  accuracy, step = max(scores)  # Of equal ones the later.
  return step, accuracy
