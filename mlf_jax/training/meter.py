"""Lines of metrics, written once the devices have computed them."""

import collections
import time

import jax

from mlf_jax.errors import UserError
from mlf_jax.training.checkpoint import CheckpointStore
from mlf_jax.training.report import MetricsLog, Progress
from mlf_jax.training.run import Run


class Meter:
  """Writes lines to the log and the terminal, never waiting for a step."""

  def __init__(
    self,
    run: Run,
    log: MetricsLog,
    progress: Progress,
    store: CheckpointStore,
    start_step: int,
  ):
    """Starts the clock.

    Args:
      run: the run the lines are of.
      log: gets the lines.
      progress: shows them.
      store: named when the run has to stop.
      start_step: step the run goes on from.
    """
    self._schedule = run.schedule
    self._config = run.config
    self._log = log
    self._progress = progress
    self._store = store
    self._pending = collections.deque()
    self._last_step = start_step
    self._told_skipped = 0
    self.restart_clock()

  def restart_clock(self) -> None:
    """Leaves what happened since the last line out of the speed."""
    self._last_time = time.monotonic()

  def add(
    self,
    step: int,
    metrics: dict[str, jax.Array],
    test_metrics: dict[str, float] | None = None,
    trained_at: float | None = None,
  ) -> None:
    """Announces a line; its numbers may still be computed.

    Args:
      step: step the line ends with.
      metrics: metrics of the training step.
      test_metrics: those of an evaluation after it.
      trained_at: when the step was done, if that is known.
    """
    self._pending.append((step, metrics, test_metrics or {}, trained_at))

  def write_ready(self) -> None:
    """Writes the lines that can be written without waiting.

    Raises:
      UserError: too many steps in a row were not finite.
    """
    while self._pending and all(
      value.is_ready() for value in self._pending[0][1].values()
    ):
      self._write(*self._pending.popleft())

  def drain(self) -> None:
    """Writes all lines.

    Raises:
      UserError: too many steps in a row were not finite.
    """
    while self._pending:
      self._write(*self._pending.popleft())

  def _write(self, step, metrics, test_metrics, trained_at):
    metrics = {k: v.item() for k, v in jax.device_get(metrics).items()}
    in_row = metrics.pop('skipped_in_row')
    now = trained_at or time.monotonic()
    speed = (
      (step - self._last_step)
      * self._config.batch_size
      / max(now - self._last_time, 1e-9)
    )
    self._last_step, self._last_time = step, now
    epoch = self._schedule.epoch(step)
    self._log.write(
      step,
      epoch,
      {**metrics, **test_metrics, 'train/samples_per_second': speed},
    )
    self._progress.update(
      step, epoch, metrics['train/loss'], metrics['train/accuracy'], speed
    )
    if test_metrics:
      self._progress.say(
        f'step {step}  epoch {epoch}  '
        f'test/loss {test_metrics["test/loss"]:.4f}  '
        f'test/accuracy {test_metrics["test/accuracy"]:.4f}'
      )
    skipped = metrics['train/skipped_steps']
    if skipped > self._told_skipped:
      self._told_skipped = skipped
      self._progress.say(
        f'warning: {skipped} steps skipped so far, whose loss, gradient or '
        'update was not finite'
      )
    limit = self._config.max_skipped_steps
    if in_row >= limit:
      self._log.flush()
      good = self._store.steps()
      last_good = (
        f'the last good checkpoint is step {good[-1]} in '
        f'{self._store.directory}'
        if good
        else 'there is no checkpoint yet'
      )
      raise UserError(
        f'{limit} steps in a row had a loss, gradient or update that is not '
        f'finite, up to step {step - (in_row - limit)}; {last_good}; a lower '
        'config.optimizer.learning_rate or a config.optimizer.clip_norm helps'
      )
