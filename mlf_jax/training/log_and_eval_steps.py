"""Maps step numbers to epochs, log steps and evaluations."""

import ml_collections


class Timeline:
  """When a run logs, evaluates and ends; the first step has the number 1.

  Attributes:
    steps_per_epoch: training steps per epoch.
    num_steps: training steps of the whole run.
  """

  def __init__(self, config: ml_collections.ConfigDict, steps_per_epoch: int):
    """Reads the intervals from the configuration."""
    self.steps_per_epoch = steps_per_epoch
    self.num_steps = config.num_steps or config.num_epochs * steps_per_epoch
    self._log_every = config.log_every
    self._log_activity_every = config.log_activity_every
    self._eval_every = max(1, round(config.eval_every_epochs * steps_per_epoch))

  def is_eval(self, step: int) -> bool:
    """True if an evaluation and a checkpoint follow the step."""
    return step % self._eval_every == 0 or step == self.num_steps

  def is_log_step(self, step: int) -> bool:
    """True if a line of metrics ends with the step."""
    return step % self._log_every == 0 or self.is_eval(step)

  def is_activity_step(self, step: int) -> bool:
    """True if a look inside the network follows the step."""
    every = self._log_activity_every
    return every > 0 and step % every == 0

  def evaluations_after(self, step: int) -> int:
    """Number of evaluations that are still to come after the step."""
    last = (self.num_steps - 1) // self._eval_every
    return 0 if step >= self.num_steps else last - step // self._eval_every + 1

  def epoch(self, step: int) -> int:
    """Number of the epoch that the step belongs to; the first is 1."""
    return (step - 1) // self.steps_per_epoch + 1
