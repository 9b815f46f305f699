"""What a configuration stands for: data, network, optimiser, schedule."""

import dataclasses
import functools

import ml_collections

from mlf_jax import data
from mlf_jax.data.frames import FrameSpec
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import optimizer as optimizer_lib
from mlf_jax.training import state as state_lib
from mlf_jax.training.parallel import AXIS
from mlf_jax.training.step import Steps


class Schedule:
  """Which step is what in a run; the first step is 1."""

  def __init__(
    self, config: ml_collections.ConfigDict, train_set: data.Dataset
  ):
    """Takes the length of an epoch from the data set."""
    self.steps_per_epoch = data.steps_per_epoch(train_set, config.batch_size)
    self.num_steps = (
      config.num_steps or config.num_epochs * self.steps_per_epoch
    )
    self._log_every = config.log_every
    self._eval_every = max(
      1, round(config.eval_every_epochs * self.steps_per_epoch)
    )

  def is_eval(self, step):
    """Whether evaluation and a checkpoint follow a step."""
    return (step % self._eval_every == 0) | (step == self.num_steps)

  def is_line(self, step):
    """Whether a line of metrics ends with a step."""
    return (step % self._log_every == 0) | self.is_eval(step)

  def epoch(self, step: int) -> int:
    """Number of the epoch a step belongs to; the first is 1."""
    return (step - 1) // self.steps_per_epoch + 1


def make_steps(
  config: ml_collections.ConfigDict,
  train_set: data.Dataset,
  schedule: Schedule,
  axis_name: str | None = AXIS,
) -> Steps:
  """The steps of a run."""
  dtype = 'float64' if config.model.dtype == 'float64' else 'float32'
  return Steps(
    model=config_lib.make_model(config, train_set.num_classes, axis_name),
    optimizer=optimizer_lib.make_optimizer(
      config,
      optimizer_lib.make_schedule(
        config, schedule.steps_per_epoch, schedule.num_steps
      ),
    ),
    config=config,
    normalize=functools.partial(
      data.normalize,
      scale=train_set.scale,
      mean=train_set.mean,
      std=train_set.std,
      dtype=dtype,
    ),
    is_line=schedule.is_line,
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """What a configuration stands for: data, network, optimiser, schedule."""

  config: ml_collections.ConfigDict
  train_set: data.Dataset
  test_set: data.Dataset
  schedule: Schedule
  steps: Steps


def frames_of(config: ml_collections.ConfigDict) -> FrameSpec:
  """How the recordings of a configuration become frames."""
  return FrameSpec(
    time_steps=config.model.time_steps,
    binning=config.data.binning,
    window_us=round(config.data.window_ms * 1000),
    downsample=config.data.downsample,
  )


def load_split(config: ml_collections.ConfigDict, split: str) -> data.Dataset:
  """Loads a split of the data of a configuration, 'train' or 'test'.

  Raises:
    UserError: the data cannot be had.
  """
  settings = config.data
  of_events = {}
  if settings.name in data.event_names():
    of_events = {'split_name': settings.split, 'frames': frames_of(config)}
  return data.load(
    settings.name,
    split,
    data_dir=settings.dir,
    manual_dir=settings.manual_dir,
    **of_events,
  )


def load(config: ml_collections.ConfigDict) -> Run:
  """Loads the data of a configuration and builds its network.

  Raises:
    UserError: the data cannot be had, or the network not be built.
  """
  train_set, test_set = (load_split(config, name) for name in ('train', 'test'))
  side = min(train_set.images.shape[-3:-1])
  for field in ('crop_padding', 'translation', 'cutout'):
    pixels = config.augment.get(field, 0)
    if pixels > side:
      raise UserError(
        f'config.augment.{field} must be at most {side}, the side of the '
        f'images of {train_set.name}, got {pixels}'
      )
  schedule = Schedule(config, train_set)
  steps = make_steps(config, train_set, schedule)
  return Run(config, train_set, test_set, schedule, steps)


def init_state(run: Run) -> state_lib.TrainState:
  """State before the first step of a run."""
  return state_lib.init_state(
    run.steps.model,
    run.steps.optimizer,
    run.config.seed,
    run.train_set.images.shape[1:],
    ema=run.config.ema_decay > 0,
  )
