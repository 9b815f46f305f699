"""Lines of metrics: summed over steps, written to files and the terminal."""

import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping

import rich.console
import rich.progress
import rich.table
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlf_jax.data import io
from mlf_jax.training.log_and_eval_steps import Timeline
from mlf_jax.training.workdir import json_text, write_errors

# The run itself reports a loss that is not finite.
logging.getLogger('tensorboardX').setLevel(logging.ERROR)

_SUMS = ('line/loss', 'line/accuracy', 'line/finite_steps')


class TrainLogger:
  """Sums the metrics of steps into lines and measures their throughput.

  A step takes the time from its dispatch, or from the end of the step before it
  if that is later, until it is done: evaluations and checkpoints are left out.

  Attributes:
    partial_sums: sums over the steps since the last line, to be kept in a
      checkpoint.
  """

  def __init__(
    self,
    log: 'MetricsLog | None',
    progress: 'Progress',
    timeline: Timeline,
    batch_size: int,
    stored: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the first line, or continues an unfinished one.

    Args:
      log: gets the lines; None in a process that does not write them.
      progress: shows them.
      timeline: says with which steps lines end and evaluations follow.
      batch_size: samples per step.
      stored: metrics of the checkpoint that the run continues from, with the
        `partial_sums` of its unfinished line.
      clock: returns the time in seconds.
    """
    self._log = log
    self._progress = progress
    self._timeline = timeline
    self._batch_size = batch_size
    self._clock = clock
    self.partial_sums = {n: (stored or {}).get(n, 0.0) for n in _SUMS}
    # The steps of this line, and all steps and evaluations of this process.
    self._line, self._steps, self._evaluations = _Timer(), _Timer(), _Timer()
    self._last_time = clock()
    self._last_metrics: Mapping[str, float] = {}
    self._reported_skips = 0

  def flush(self) -> None:
    """Waits until all lines are on disk."""
    if self._log is not None:
      self._log.flush()

  def start_clock(self) -> None:
    """Starts the time of the next step, when no other step is under way."""
    self._last_time = self._clock()

  def add_step(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds a step that is done, and writes the line that ends with it.

    A line that ends with an evaluation waits for `add_evaluation`.

    Args:
      step: number of the step.
      metrics: metrics of `train_step`, on the host.
    """
    now = self._clock()
    for timer in (self._line, self._steps):
      timer.add(now - self._last_time)
    self._last_time, self._last_metrics = now, metrics
    if not metrics['skipped_in_row']:
      for name in ('loss', 'accuracy'):
        self.partial_sums[f'line/{name}'] += float(metrics[name])
      self.partial_sums['line/finite_steps'] += 1
    self._progress.advance(step)
    if self._timeline.is_log_step(step) and not self._timeline.is_eval(step):
      self.write_line(step)

  def add_evaluation(
    self, step: int, test_metrics: Mapping[str, float]
  ) -> None:
    """Writes the line of a step that an evaluation followed.

    Args:
      step: number of the step.
      test_metrics: metrics of the evaluation.
    """
    self._evaluations.add(self._clock() - self._last_time)
    self.write_line(step, test_metrics)
    metrics = (f'{name} {value:.4f}' for name, value in test_metrics.items())
    self._progress.say(
      f'step {step}  epoch {self._timeline.epoch(step)}  {"  ".join(metrics)}'
    )

  def write_line(
    self, step: int, test_metrics: Mapping[str, float] | None = None
  ) -> None:
    """Writes the means over the steps since the last line, if there are any.

    Args:
      step: number of the last step.
      test_metrics: metrics of an evaluation, for the same line.
    """
    if not self._line.count:
      return
    loss, accuracy, steps = self.partial_sums.values()
    skipped = int(self._last_metrics['skipped_steps'])
    line = {
      'train/loss': loss / steps if steps else math.nan,
      'train/accuracy': accuracy / steps if steps else math.nan,
      'train/learning_rate': float(self._last_metrics['learning_rate']),
      'train/skipped_steps': skipped,
      **(test_metrics or {}),
      'train/samples_per_second': self._batch_size / max(self._line.mean, 1e-9),
    }
    self.partial_sums, self._line = dict.fromkeys(_SUMS, 0.0), _Timer()
    epoch = self._timeline.epoch(step)
    if self._log is not None:
      self._log.write(step, epoch, line)
    seconds_left = self._steps.mean * (
      self._timeline.num_steps - step
    ) + self._evaluations.mean * self._timeline.evaluations_after(step)
    self._progress.update(step, epoch, line, seconds_left)
    if skipped > self._reported_skips:
      self._reported_skips = skipped
      self._progress.say(
        f'warning: {skipped} steps skipped so far, whose loss, gradient or '
        'update was not finite'
      )


@dataclasses.dataclass
class _Timer:
  """Number and total time of steps or evaluations."""

  count: int = 0
  seconds: float = 0.0

  def add(self, seconds):
    """Adds one of them."""
    self.count += 1
    self.seconds += seconds

  @property
  def mean(self):
    """Mean seconds, 0 before the first."""
    return self.seconds / max(self.count, 1)


class MetricsLog:
  """Writes scalars of a run to `metrics.jsonl` and for TensorBoard.

  `metrics.jsonl` has one JSON object per line, with `step`, `epoch`, and the
  scalars; NaN and infinity are null. TensorBoard's event files are in
  `tensorboard/`; they show NaN as it is.
  """

  def __init__(self, workdir: str | pathlib.Path, step: int = 0):
    """Opens the log of a run and removes what is later than a checkpoint.

    Args:
      workdir: directory of the run, made if it does not exist.
      step: step of the checkpoint that training continues from, 0 for the
        first. Later lines and half a line are removed, and TensorBoard is told
        to hide later events.

    Raises:
      UserError: it cannot be written to.
    """
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    folder = self._path.with_name('tensorboard')
    with write_errors(self._path):
      folder.mkdir(parents=True, exist_ok=True)
      if self._path.exists():
        io.write_atomically(self._path, self._lines_until(step))
      self._file = open(self._path, 'ab', buffering=0)  # noqa: SIM115
      # tensorboardX's `SummaryWriter` would write from a thread of its own,
      # which its `flush` does not wait for. The name of the file holds whole
      # seconds; with nanoseconds too, runs that follow each other within a
      # second have files of their own, in TensorBoard's order.
      self._events = EventsWriter(str(folder / 'events'), f'.{time.time_ns()}')
      # TensorBoard hides earlier events of this step and later ones.
      start = SessionLog(status=SessionLog.START)
      self._events.write_event(
        Event(wall_time=time.time(), step=step + 1, session_log=start)
      )

  def write(
    self, step: int, epoch: float, scalars: Mapping[str, float]
  ) -> None:
    """Appends one line.

    Args:
      step: number of training steps so far.
      epoch: number of the epoch.
      scalars: by slash-separated names, such as `train/loss`.

    Raises:
      UserError: the files cannot be written.
    """
    scalars = {name: float(value) for name, value in scalars.items()}
    line = json_text({'step': step, 'epoch': epoch, **scalars})
    with write_errors(self._path):
      # A single write, so that a killed run leaves whole lines, unless the
      # machine crashes.
      content = line.encode() + b'\n'
      if self._file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      for name, value in scalars.items():
        scalar = summary.scalar(name, value)
        self._events.write_event(
          Event(wall_time=time.time(), step=step, summary=scalar)
        )
      # A TensorBoard that is watching shows the line at once.
      self._events.flush()

  def flush(self) -> None:
    """Waits until all lines are on disk.

    Called before a checkpoint is saved: otherwise a crash could lose lines and
    keep the later checkpoint.

    Raises:
      UserError: the file cannot be written.
    """
    with write_errors(self._path):
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Waits until all lines are on disk and closes the files."""
    self.flush()
    self._file.close()
    self._events.close()

  def _lines_until(self, step: int) -> bytes:
    """Whole lines of the file up to a step."""
    kept = []
    for line in self._path.read_bytes().splitlines():
      with contextlib.suppress(ValueError, TypeError, KeyError):
        if json.loads(line)['step'] <= step:
          kept.append(line + b'\n')
    return b''.join(kept)


class Progress:
  """Shows how far training is: a bar on a terminal, otherwise lines.

  A context manager; leaving it, also by an exception, restores the terminal.
  """

  def __init__(self, total_steps: int, initial_step: int = 0):
    """Prepares the display.

    Args:
      total_steps: steps of the whole run.
      initial_step: step from which this process continues.
    """
    self._total_steps = total_steps
    console = rich.console.Console()
    self._bar = None
    if sys.stdout.isatty() and not console.is_dumb_terminal:
      width = 2 * len(f'{total_steps}') + 1
      column = rich.table.Column(no_wrap=True, min_width=width)
      self._bar = rich.progress.Progress(
        rich.progress.MofNCompleteColumn(table_column=column),
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
    """Moves the bar, if there is one, to a step between two lines."""
    if self._bar is not None:
      self._bar.update(self._task, completed=step)

  def update(
    self, step: int, epoch: int, line: Mapping[str, float], seconds_left: float
  ) -> None:
    """Shows the numbers of a line.

    Args:
      step: number of training steps so far.
      epoch: number of the epoch.
      line: metrics of training.
      seconds_left: expected seconds until training ends.
    """
    minutes, seconds = divmod(round(seconds_left), 60)
    status = (
      f'loss {line["train/loss"]:.4f}  '
      f'accuracy {line["train/accuracy"]:.3f}  '
      f'{line["train/samples_per_second"]:.0f} samples/s  '
      f'{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}'
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
