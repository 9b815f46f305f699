"""What a run says on the terminal and writes into its directory."""

import contextlib
import errno
import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import rich.console
import rich.progress
from rich.table import Column
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlf_jax.errors import UserError

# A loss that is not finite is told by the run itself.
logging.getLogger('tensorboardX').setLevel(logging.ERROR)


def write_json(path: str | pathlib.Path, obj: Any) -> None:
  """Writes a JSON file that is there either whole or not at all.

  Args:
    path: the file; an earlier one is replaced.
    obj: what `json` can write. NaN and infinity become null, as JSON has none.

  Raises:
    UserError: the file cannot be written.
  """
  text = json.dumps(_finite(obj), indent=2, allow_nan=False) + '\n'
  _replace(pathlib.Path(path), text.encode())


class MetricsLog:
  """Scalars of a run, in `metrics.jsonl` and for TensorBoard.

  `metrics.jsonl` has one JSON object a line, with `step`, `epoch`, and the
  scalars, among which NaN and infinity are null. TensorBoard's event files are
  in `tensorboard/`; they show NaN as it is.
  """

  def __init__(self, workdir: str | pathlib.Path):
    """Opens the log of a run, to append to it.

    Args:
      workdir: directory of the run, made if it is not there.

    Raises:
      UserError: it cannot be written to.
    """
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._events_directory = self._path.with_name('tensorboard')
    self._events: EventsWriter | None = None
    self._resumed_step: int | None = None
    with _write_errors(self._events_directory):
      self._events_directory.mkdir(parents=True, exist_ok=True)
    self._open()

  def write(
    self, step: int, epoch: float, scalars: Mapping[str, float]
  ) -> None:
    """Appends one line.

    Args:
      step: number of updates so far.
      epoch: number of epochs so far.
      scalars: by slash-separated names, as `train/loss`.

    Raises:
      UserError: the files cannot be written.
    """
    scalars = {name: float(value) for name, value in scalars.items()}
    line = json.dumps(
      _finite({'step': step, 'epoch': epoch, **scalars}), allow_nan=False
    )
    with _write_errors(self._path):
      # In a single write: a killed run leaves whole lines, bar a crash of the
      # machine.
      content = line.encode() + b'\n'
      if self._file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      if self._events is None:
        self._events = self._open_events()
      for name, value in scalars.items():
        self._events.write_event(
          Event(
            wall_time=time.time(),
            step=step,
            summary=summary.scalar(name, value),
          )
        )
      # For a TensorBoard that looks on.
      self._events.flush()

  def resume(self, step: int) -> None:
    """Forgets what came after a checkpoint, before training goes on from it.

    A run that starts anew in a directory that has been used resumes from 0.

    Args:
      step: of the checkpoint. Later lines and half a line are removed, and
        TensorBoard is told to hide later events.

    Raises:
      UserError: the file cannot be written.
    """
    self._file.close()
    kept = []
    for line in self._path.read_bytes().splitlines():
      try:
        whole = json.loads(line)['step'] <= step
      except (ValueError, TypeError, KeyError):
        whole = False
      if whole:
        kept.append(line + b'\n')
    _replace(self._path, b''.join(kept))
    self._resumed_step = step
    self._open()

  def flush(self) -> None:
    """Waits until all lines are on disk; called before a checkpoint is saved.

    Otherwise the lines between two checkpoints could be lost, while the later
    checkpoint is not.

    Raises:
      UserError: the file cannot be written.
    """
    with _write_errors(self._path):
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Writes what is left and closes the files."""
    self.flush()
    self._file.close()
    if self._events is not None:
      self._events.close()
      self._events = None

  def _open(self) -> None:
    with _write_errors(self._path):
      self._file = open(self._path, 'ab', buffering=0)  # noqa: SIM115

  def _open_events(self) -> EventsWriter:
    """Opens an event file when there is something to write to it.

    tensorboardX's `SummaryWriter` would write from a thread of its own, which
    its `flush` does not wait for.
    """
    # The name has whole seconds in it; runs that follow each other within one
    # would overwrite each other's file. TensorBoard reads them sorted by name.
    events = EventsWriter(
      str(self._events_directory / 'events'), f'.{time.time_ns()}'
    )
    if self._resumed_step is not None:
      # TensorBoard then hides what it has of this step and later ones.
      events.write_event(
        Event(
          wall_time=time.time(),
          step=self._resumed_step + 1,
          session_log=SessionLog(status=SessionLog.START),
        )
      )
    return events


class Progress:
  """How far training is: a bar on a terminal, else one line an update.

  A context manager; leaving it, also by an exception, restores the terminal.
  """

  def __init__(self, total_steps: int, initial_step: int = 0):
    """Prepares the display.

    Args:
      total_steps: steps of the whole run.
      initial_step: step from which this process goes on.
    """
    self._total_steps = total_steps
    # (step, time) from which the speed is measured.
    self._start = (initial_step, time.monotonic())
    self._updates = 0
    console = rich.console.Console()
    self._bar = None
    if sys.stdout.isatty() and not console.is_dumb_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn(
          '{task.completed}/{task.total}',
          table_column=Column(
            no_wrap=True, min_width=len(f'{total_steps}') * 2 + 1
          ),
        ),
        rich.progress.BarColumn(bar_width=None),
        rich.progress.TextColumn('{task.fields[status]}', markup=False),
        console=console,
        expand=True,
      )
      self._task = self._bar.add_task(
        '', total=total_steps, completed=initial_step, status=''
      )

  def __enter__(self) -> 'Progress':
    """Shows the bar."""
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    """Leaves the bar as it is and gives the terminal back."""
    if self._bar is not None:
      self._bar.stop()

  def advance(self, step: int) -> None:
    """Moves the bar, if there is one, between two updates.

    Args:
      step: number of updates so far.
    """
    if self._bar is not None:
      self._bar.update(self._task, completed=step)

  def update(
    self,
    step: int,
    epoch: int,
    loss: float,
    accuracy: float,
    samples_per_second: float,
  ) -> None:
    """Shows the numbers of the last logging interval.

    Args:
      step: number of updates so far.
      epoch: number of the epoch.
      loss: mean training loss.
      accuracy: training accuracy, from 0 to 1.
      samples_per_second: speed of training.
    """
    status = (
      f'loss {loss:.4f}  accuracy {accuracy:.3f}  '
      f'{samples_per_second:.0f} samples/s  {self._time_left(step)}'
    )
    if self._bar is None:
      self.say(f'step {step}/{self._total_steps}  epoch {epoch}  {status} left')
    else:
      self._bar.update(self._task, completed=step, status=status)

  def say(self, line: str) -> None:
    """Prints a line, above the bar if there is one."""
    if self._bar is None:
      print(line, flush=True)
    else:
      self._bar.console.print(
        line, markup=False, highlight=False, soft_wrap=True
      )

  def _time_left(self, step: int) -> str:
    """Returns hours, minutes and seconds at the mean speed so far."""
    now = time.monotonic()
    start_step, start_time = self._start
    self._updates += 1
    if self._updates == 1:
      # From here on, compilation is behind.
      self._start = (step, now)
    if step <= start_step:
      return '--:--:--'
    speed = (step - start_step) / (now - start_time)
    seconds = round(max(self._total_steps - step, 0) / speed)
    minutes, seconds = divmod(seconds, 60)
    return f'{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}'


@contextlib.contextmanager
def _write_errors(path: pathlib.Path) -> Iterator[None]:
  """Turns a full disk or a missing permission into one line."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {error.strerror or error}'
    ) from error


def _replace(path: pathlib.Path, content: bytes) -> None:
  """Writes a file atomically: a reader sees the old one or the new one."""
  temporary = path.with_name(path.name + '.tmp')
  with _write_errors(path):
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)


def _finite(obj: Any) -> Any:
  """Returns the same object with None for NaN and infinity."""
  if isinstance(obj, Mapping):
    return {key: _finite(value) for key, value in obj.items()}
  if isinstance(obj, list | tuple):
    return [_finite(value) for value in obj]
  if isinstance(obj, float) and not math.isfinite(obj):
    return None
  return obj
