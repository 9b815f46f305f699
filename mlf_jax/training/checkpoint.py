"""Checkpoints of a run: saved in the background, verified when read back."""

import contextlib
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import flax
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mlf_jax.errors import UserError
from mlf_jax.training import file_sums, processes, ranking

State = TypeVar('State')
# A number is that of a step.
Which = Literal['last', 'best'] | int
Metrics = dict[str, float] | None

# Items of a checkpoint; files beside them may still change while it is saved.
_ITEMS = 'record', 'state'
# Orbax's name of the file that holds a JSON value.
_JSON_FILE = 'metadata'

# Messages that Orbax logs through absl reach the user as a UserError or not at
# all; the path of a log record tells Orbax's records from those of others.
_ORBAX_ROOT = str(pathlib.Path(ocp.__file__).parent)
logging.getLogger('absl').addFilter(
  lambda record: not record.pathname.startswith(_ORBAX_ROOT)
)


class CheckpointStore(contextlib.AbstractContextManager):
  """Keeps the last few checkpoints of a run and the best one in a directory.

  A checkpoint is a directory, `100` after 100 steps. Its `state` is an ordinary
  Orbax tree of NumPy arrays, which any program reads on any devices:

      ocp.StandardCheckpointer().restore(f'{workdir}/checkpoints/100/state')

  `record` holds the metrics, and `SHA256SUMS` a digest of each file, which is
  compared when the checkpoint is read, so that a damaged file is never trained
  on. The directory gets its name when all of this is on disk.

  The best checkpoint has the highest accuracy on the validation samples, or on
  the test samples if there are no others; ties go to the later step. A
  checkpoint without an accuracy, or with NaN, is never the best.

  In a run of several processes all of them call the same methods in the same
  order, on a file system that all of them see. Reading changes nothing in the
  directory, unless a checkpoint is corrupt.
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
        async_options=ocp.AsyncOptions(
          post_finalization_callback=self._write_sums,
          barrier_sync_fn=_wait_for_others,
        ),
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

    The state is copied before this returns, so its buffers may be donated. The
    rest happens in the background; `wait` waits for it.

    Args:
      step: number of updates that led to the state.
      state: a pytree of JAX arrays that Flax can turn into nested dictionaries.
        Random keys have to be kept as seeds.
      metrics: scalars to keep with the state; the accuracy ranks it.

    Raises:
      UserError: this save or the one before could not be written.
    """
    if step in self.steps():
      return
    if metrics is not None:
      metrics = {name: float(value) for name, value in metrics.items()}
    self._accuracy[step] = ranking.accuracy(metrics or {})
    if not self._prepared:
      processes.on_first(self._prepare_directory)
      self._prepared = True
    # Orbax may keep hold of a buffer, which could then not be donated.
    state = flax.serialization.to_state_dict(_copy(state))
    with self._write_errors():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          record=ocp.args.JsonSave({'metrics': metrics}),
        ),
        # The caller decides when to save.
        force=True,
      )

  def restore(
    self, template: State, which: Which = 'last'
  ) -> tuple[int, State, Metrics] | None:
    """Reads a checkpoint back, bit for bit.

    Args:
      template: pytree of arrays or `jax.ShapeDtypeStruct` whose structure,
        shapes, dtypes and shardings the restored state gets.
      which: see `read`.

    Returns:
      The step, the state, whose buffers can be donated, and the metrics it was
      saved with; None if the store is empty.

    Raises:
      UserError: the checkpoint belongs to a different model, or every
        checkpoint is corrupt.
    """
    found = self.read(which)
    if found is None:
      return None
    step, arrays, metrics = found
    _check_layout(template, arrays, self._path(step))
    return step, _place(template, arrays), metrics

  def read(self, which: Which = 'last') -> tuple[int, dict, Metrics] | None:
    """Reads the arrays of a checkpoint, whatever state they belong to.

    A corrupt checkpoint is reported to `warn`, moved to a directory beside the
    store (`checkpoints` -> `checkpoints_corrupt`) if `move_corrupt` is set, and
    the last intact one is read instead, unless a step is asked for.

    Args:
      which: 'last', 'best' (the last one if none is ranked), or a step.

    Returns:
      The step, nested dictionaries of NumPy arrays, and the metrics; None if
      the store is empty.

    Raises:
      UserError: every checkpoint is corrupt, or the one that is asked for.
    """
    self.wait()
    self._reload()
    step, metrics = processes.on_first(lambda: self._choose(which))
    if step is None:
      return None
    self._reload()  # The first process may have moved corrupt checkpoints.
    path = self._path(step)
    try:
      with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        arrays = reader.restore(path / 'state')
    except FileNotFoundError:
      if path.exists():
        raise
      # The process that writes has just replaced it by a later one.
      return self.read(which)
    return step, arrays, metrics

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
    with self._write_errors():
      self.directory.mkdir(parents=True, exist_ok=True)
      for path in self.directory.glob(f'*{ocp.path.step.TMP_DIR_SUFFIX}*'):
        shutil.rmtree(path)

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
        self._accuracy[step] = ranking.accuracy(self._read_metrics(step) or {})

  def _read_metrics(self, step: int) -> Metrics:
    """Metrics of a checkpoint, None where a damaged file holds none."""
    path = self._path(step) / 'record' / _JSON_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
      return json.loads(path.read_bytes())['metrics']
    return None

  def _write_sums(self) -> None:
    """Lists the sums of the files of the checkpoint that is being saved.

    Orbax calls this when the files are there, before the directory gets its
    name.
    """
    if not processes.is_first():
      return
    (folder,) = self.directory.glob(f'*{ocp.path.step.TMP_DIR_SUFFIX}*')
    # It ties the arrays to the devices that they were on: without it, programs
    # on any other devices can read them.
    (folder / 'state' / '_sharding').unlink(missing_ok=True)
    file_sums.write(folder, _ITEMS)

  def _choose(self, which: Which) -> tuple[int | None, Metrics]:
    """Finds the checkpoint to read, and moves corrupt ones out of the way."""
    candidates, best = self.steps()[::-1], self.best_step()
    if which == 'best' and candidates:
      if best is None:
        self._warn(
          f'no checkpoint in {self.directory} has an accuracy: '
          f'taking the last one, step {candidates[0]}'
        )
      candidates.sort(key=lambda step: step != best)
    elif isinstance(which, int):
      candidates = [step for step in candidates if step == which]
    for step in candidates:
      try:
        file_sums.verify(self._path(step), _ITEMS)
      except PermissionError as error:
        raise UserError(
          f'cannot read the checkpoint {self._path(step)}: {error.strerror}'
        ) from error
      except file_sums.DamagedError as error:
        if not self._path(step).exists():
          # The process that writes has just replaced it by a later one.
          self._reload()
          return self._choose(which)
        self._report_corrupt(step, str(error))
      else:
        return step, self._read_metrics(step)
    # Otherwise a second attempt would silently train from the beginning.
    corrupt = self._corrupt_directory
    if candidates or (corrupt.is_dir() and any(corrupt.iterdir())):
      place = corrupt if corrupt.is_dir() else self.directory
      raise UserError(
        f'no intact checkpoint in {self.directory}, the corrupt ones are in '
        f'{place}; bring back a copy, or remove {place} to train anew'
      )
    return None, None

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


def _layout(tree: Any) -> dict[str, str]:
  """Names of the leaves of a pytree, with dtypes and shapes."""
  flat = flax.traverse_util.flatten_dict(
    flax.serialization.to_state_dict(tree), sep='/'
  )
  return {
    name: f'{leaf.dtype}{list(leaf.shape)}'
    for name, leaf in flat.items()
    if leaf is not None
  }


def _check_layout(template: Any, restored: Any, path: pathlib.Path) -> None:
  wanted, there = _layout(template), _layout(restored)
  for name in [*wanted, *there]:
    saved, here = there.get(name, 'missing'), wanted.get(name, 'missing')
    if saved != here:
      raise UserError(
        f'checkpoint {path} is of a different model or optimizer: {name} is '
        f'{saved} there and {here} here'
      )


def _wait_for_others(*, key: str, timeout_ms: int) -> None:
  """Waits for the other processes, unless a save has failed in this one.

  They wait at a barrier that this process will not reach. Orbax would wait for
  them at the next one, and all would hang until the timeout of 20 minutes. This
  process ends instead, and JAX then ends the others.
  """
  if sys.exception() is None:
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


def _place(template: State, restored: Any) -> State:
  """Puts NumPy arrays into a template's structure and on its devices."""
  likes, structure = jax.tree.flatten(template)
  arrays = structure.flatten_up_to(
    flax.serialization.from_state_dict(template, restored)
  )
  # An uncommitted array stays uncommitted, so that jit may still move it.
  shardings = [
    like.sharding if getattr(like, 'committed', True) else None
    for like in likes
  ]
  # On a CPU the buffers may belong to NumPy, and JAX must not reuse them.
  copy = jax.jit(_copy, out_shardings=shardings)
  return structure.unflatten(copy(arrays))
