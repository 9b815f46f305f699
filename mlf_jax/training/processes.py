"""The processes of a run: they join, compare settings and share errors.

JAX runs the same program in every process; a device belongs to one of them. The
first process, number 0, reports and writes. All of this works, and costs
nothing, in a run of one process too.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mlf_jax.errors import UserError

Value = TypeVar('Value')

# A process that is silent for so long is taken for dead, and the others stop.
_HEARTBEAT_SECONDS = 30
# At the end each process waits so long for the others to get there.
_SHUTDOWN_SECONDS = 20


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the processes of a run, before any device is used.

  Without arguments JAX finds them on Slurm, Kubernetes, Open MPI and Cloud TPU.

  Args:
    coordinator: address of the first process, 'host:port'.
    num_processes: number of processes.
    process_id: number of this process, from 0 on.

  Raises:
    UserError: they cannot be found, or do not all arrive in time.
  """
  given = {
    '--coordinator': coordinator,
    '--num_processes': num_processes,
    '--process_id': process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    raise UserError(
      f'{" and ".join(missing)} is missing: give --coordinator=HOST:PORT, '
      '--num_processes and --process_id, or none of them where JAX finds them '
      'itself (Slurm, Kubernetes, Open MPI, Cloud TPU)'
    )
  if coordinator is not None and ':' not in coordinator:
    raise UserError(
      f'--coordinator must be HOST:PORT, such as {coordinator}:8476, got '
      f'{coordinator!r}'
    )
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      # Given all three, nothing has to be detected.
      cluster_detection_method=None if missing else 'deactivate',
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
  # The type of the error depends on what is wrong, and on how it is found.
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    hint = ''
    if missing:
      hint = (
        '; outside of Slurm, Kubernetes, Open MPI and Cloud TPU give '
        '--coordinator=HOST:PORT, --num_processes and --process_id'
      )
    raise UserError(
      f'--distributed: the processes cannot join: {reason}{hint}'
    ) from None


def is_first() -> bool:
  """True in the process that reports and writes."""
  return jax.process_index() == 0


def on_all(function: Callable[[], Value]) -> Value:
  """Calls a function in every process and waits for all of them.

  Returns:
    What the function returned in this process.

  Raises:
    UserError: it raised one in some process; it is then raised in all.
  """
  value, message = None, ''
  try:
    value = function()
  except UserError as error:
    if jax.process_count() == 1:
      raise
    message = f'process {jax.process_index()}: {error}'
  _raise_first(_gather(message))
  return value


def on_first(function: Callable[[], Any]) -> Any:
  """Calls a function in the first process alone.

  Args:
    function: returns what JSON can hold.

  Returns:
    What it returned, in all processes.

  Raises:
    UserError: it raised one; it is then raised in all processes.
  """
  if jax.process_count() == 1:
    return function()
  answer = {}
  if is_first():
    try:
      answer['value'] = function()
    except UserError as error:
      answer['error'] = str(error)
  answer = json.loads(_gather(json.dumps(answer))[0])
  if 'error' in answer:
    raise UserError(answer['error'])
  return answer['value']


def require_same(settings: Mapping[str, Any]) -> None:
  """Checks that all processes were started with the same settings.

  Args:
    settings: values that JSON can hold, by the names that messages give them.

  Raises:
    UserError: lists what differs and where, in all processes.
  """
  everyone = [json.loads(text) for text in _gather(json.dumps(settings))]
  differences = [
    f'{name} is {first!r} in process 0 and {other.get(name, "absent")!r} in '
    f'process {number}'
    for number, other in enumerate(everyone)
    for name, first in everyone[0].items()
    if other.get(name, 'absent') != first
  ]
  if differences:
    raise UserError(
      f'the processes of a run need the same command: {"; ".join(differences)}'
    )


def _raise_first(messages):
  for message in filter(None, messages):
    raise UserError(message)


def _gather(text: str) -> list[str]:
  """Returns the texts of all processes, in their order."""
  if jax.process_count() == 1:
    return [text]
  content = np.frombuffer(text.encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(content.size))
  padded = np.zeros(max(lengths.max(), 1), np.uint8)
  padded[: content.size] = content
  gathered = multihost_utils.process_allgather(padded)
  return [
    bytes(row[:length]).decode()
    for row, length in zip(gathered, lengths, strict=True)
  ]
