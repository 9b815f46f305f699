"""Checkpoints of a run: saved in the background, verified when read back."""

import contextlib
import logging
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import orbax.checkpoint as ocp

from mlf_jax.errors import UserError
from mlf_jax.training import _serialization as serialization

State = TypeVar('State')
Which = Literal['last', 'best']
Metrics = dict[str, float] | None

RANKED_BY = 'test/accuracy'

# Messages that Orbax logs through absl reach the user as a UserError or not at
# all; the path of a log record tells Orbax's records from those of others.
_ORBAX_ROOT = str(pathlib.Path(ocp.__file__).parent)
logging.getLogger('absl').addFilter(
  lambda record: not record.pathname.startswith(_ORBAX_ROOT)
)


class CheckpointStore(contextlib.AbstractContextManager):
  """Keeps the last few checkpoints of a run and the best one in a directory.

  A checkpoint is the bytes of a state, one leaf after the other, and a record:
  names, dtypes and shapes of the leaves, the metrics, and a digest of all this.
  The digest is compared when the checkpoint is read, so that a damaged file is
  never trained on.

  The best checkpoint has the highest `test/accuracy`; ties go to the later
  step. A checkpoint without that metric, or with NaN, is never the best.

  Reading changes nothing in the directory, unless a checkpoint is corrupt.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    keep: int = 3,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    move_corrupt: bool = True,
  ):
    """Opens the store; the first save creates the directory.

    Args:
      directory: where the checkpoints are, one subdirectory per step.
      keep: number of last checkpoints that are kept, besides the best.
      warn: gets one line for each corrupt checkpoint that is found.
      move_corrupt: False leaves corrupt checkpoints where they are, for a
        reader while another process may write there.
    """
    self.directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._warn = warn
    self._move_corrupt = move_corrupt
    self._prepared = False
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        create=False,
        preservation_policy=self,
        # A damaged file must not keep the store from opening.
        lightweight_initialize=True,
      ),
    )
    self._accuracy: dict[int, float | None] = {}
    self._reload()

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, in increasing order."""
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """Returns the step of the best checkpoint, None if none is ranked."""
    return self._best_of(self.steps())

  def save(
    self, step: int, state: Any, metrics: Mapping[str, float] | None = None
  ) -> None:
    """Starts to save a state; a step that is already there is left as it is.

    The state is copied to the host before this returns, so its buffers may be
    donated. The rest happens in the background; `wait` waits for it.

    Args:
      step: number of updates that led to the state.
      state: a pytree of JAX arrays. Random keys have to be kept as seeds.
      metrics: scalars to keep with the state; `test/accuracy` ranks it.

    Raises:
      UserError: this save or the one before could not be written.
    """
    if step in self.steps():
      return
    layout, content = serialization.pack(state)
    if metrics is not None:
      metrics = {name: float(value) for name, value in metrics.items()}
    self._accuracy[step] = _accuracy(metrics)
    with self._write_errors():
      self._prepare_directory()
      self._manager.save(
        step,
        args=ocp.args.Composite(
          # All leaves in one array, as Orbax reads several at a time and those
          # that are still on their way when one fails complain on stderr.
          state=ocp.args.ArraySave(content),
          record=ocp.args.JsonSave(
            {
              'layout': layout,
              'metrics': metrics,
              'digest': serialization.digest(content, layout, metrics),
            }
          ),
        ),
        # The caller decides when to save.
        force=True,
      )

  def restore(
    self, template: State, which: Which = 'last'
  ) -> tuple[int, State, Metrics] | None:
    """Reads a checkpoint back, bit for bit.

    A corrupt checkpoint is reported to `warn`, moved to a directory beside the
    store (`checkpoints` -> `checkpoints_corrupt`) if `move_corrupt` is set, and
    the last intact one is restored instead.

    Args:
      template: pytree of arrays or `jax.ShapeDtypeStruct` whose structure,
        shapes, dtypes and shardings the restored state gets.
      which: 'last', or 'best' (the last one if none is ranked).

    Returns:
      The step, the state, whose buffers can be donated, and the metrics it was
      saved with; None if the store is empty.

    Raises:
      UserError: the checkpoint belongs to a different model, or every
        checkpoint is corrupt.
    """
    self.wait()
    self._reload()
    candidates, best = self.steps()[::-1], self.best_step()
    if which == 'best' and candidates:
      if best is None:
        self._warn(
          f'no checkpoint in {self.directory} has {RANKED_BY}: '
          f'taking the last one, step {candidates[0]}'
        )
      candidates.sort(key=lambda step: step != best)
    for step in candidates:
      try:
        content, layout, metrics = self._read(step)
      except _CorruptError as error:
        if not self._path(step).exists():
          # The process that writes has just replaced it by a later one.
          return self.restore(template, which)
        self._report_corrupt(step, str(error))
      else:
        self._check_layout(template, layout, step)
        return step, serialization.unpack(template, layout, content), metrics
    # Otherwise a second attempt would silently train from the beginning.
    corrupt = self._corrupt_directory
    if candidates or (corrupt.is_dir() and any(corrupt.iterdir())):
      place = corrupt if corrupt.is_dir() else self.directory
      raise UserError(
        f'no intact checkpoint in {self.directory}, the corrupt ones are in '
        f'{place}; bring back a copy, or remove {place} to train anew'
      )
    return None

  def wait(self) -> None:
    """Waits until everything is on disk.

    Raises:
      UserError: a save could not be written.
    """
    with self._write_errors():
      self._manager.wait_until_finished()

  def __exit__(self, *unused_exception) -> None:
    """Waits for the last save and ends the threads that save.

    Raises:
      UserError: a save could not be written.
    """
    try:
      self.wait()
    finally:
      self._manager.close()

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Decides which checkpoints are kept: Orbax's `PreservationPolicy`.

    Orbax's own `LatestN` and `BestN` together do the same, but they read the
    metrics of earlier runs from files that must be undamaged.
    """
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = {*sorted(steps)[-self._keep :], self._best_of(steps)}
    return [step in kept for step in steps]

  def _path(self, step: int) -> pathlib.Path:
    return self.directory / str(step)

  def _best_of(self, steps: list[int]) -> int | None:
    ranked = [step for step in steps if self._accuracy[step] is not None]
    return max(ranked, key=lambda s: (self._accuracy[s], s), default=None)

  @property
  def _corrupt_directory(self) -> pathlib.Path:
    return self.directory.with_name(self.directory.name + '_corrupt')

  def _prepare_directory(self) -> None:
    """Makes the directory and removes what a killed run left half-written.

    This waits for the first save: a process that only evaluates must not remove
    what the training process is just writing.
    """
    if not self._prepared:
      self.directory.mkdir(parents=True, exist_ok=True)
      for path in self.directory.glob(f'*{ocp.path.step.TMP_DIR_SUFFIX}*'):
        shutil.rmtree(path)
    self._prepared = True

  @contextlib.contextmanager
  def _write_errors(self) -> Iterator[None]:
    """Turns what Orbax raises when it cannot write into one line."""
    try:
      yield
    # TensorStore reports errors of the file system as ValueErrors.
    except (OSError, ValueError) as error:
      # Orbax still counts the failed step, and no longer counts the steps that
      # it would have deleted afterwards.
      self._reload()
      reason = getattr(error, 'strerror', None) or str(error).split('\n')[0]
      raise UserError(
        f'cannot save a checkpoint in {self.directory}: {reason}'
      ) from error

  def _reload(self) -> None:
    """Reads what is in the directory, where other processes may write too."""
    self._manager.reload()
    for step in self.steps():
      if step not in self._accuracy:
        self._accuracy[step] = _accuracy(self._read_metrics(step))

  def _read_metrics(self, step: int) -> Metrics:
    try:
      restored = self._manager.restore(
        step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
      )
      return restored['record']['metrics']
    except Exception:
      # A corrupt checkpoint, which `restore` reports if it is asked for it.
      return None

  def _read(
    self, step: int
  ) -> tuple[np.ndarray, serialization.Layout, Metrics]:
    try:
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.ArrayRestore(), record=ocp.args.JsonRestore()
        ),
      )
      content, record = restored['state'], restored['record']
      layout, metrics = record['layout'], record['metrics']
      intact = record['digest'] == serialization.digest(
        content, layout, metrics
      )
    except (PermissionError, MemoryError) as error:
      reason = getattr(error, 'strerror', None) or 'not enough memory'
      raise UserError(
        f'cannot read the checkpoint {self._path(step)}: {reason}'
      ) from error
    # The type of the error depends on which bytes are damaged.
    except Exception as error:
      raise _CorruptError('cannot be read') from error
    if not intact:
      raise _CorruptError('does not match its digest')
    return content, layout, metrics

  def _report_corrupt(self, step: int, reason: str) -> None:
    source = self._path(step)
    line = f'the checkpoint of step {step} is corrupt: {source} {reason}'
    if self._move_corrupt:
      target, count = self._corrupt_directory / str(step), 1
      while target.exists():
        count += 1
        target = self._corrupt_directory / f'{step}_{count}'
      try:
        self._corrupt_directory.mkdir(exist_ok=True)
        source.rename(target)
        line += f'; moved to {target}'
      except OSError as error:
        line += f'; left there: {error.strerror}'
      self._reload()
    self._warn(line)

  def _check_layout(
    self, template: Any, layout: serialization.Layout, step: int
  ) -> None:
    wanted = {
      name: serialization.describe(leaf)
      for name, leaf in serialization.named_leaves(template)
    }
    for name in [*wanted, *layout]:
      saved, here = layout.get(name, 'missing'), wanted.get(name, 'missing')
      if saved != here:
        raise UserError(
          f'checkpoint {self._path(step)} is of a different model or '
          f'optimizer: {name} is {saved} there and {here} here'
        )


class _CorruptError(Exception):
  """A checkpoint is there, but damaged."""


def _accuracy(metrics: Metrics) -> float | None:
  accuracy = (metrics or {}).get(RANKED_BY, math.nan)
  return None if math.isnan(accuracy) else accuracy
