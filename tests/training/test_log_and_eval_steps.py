"""Steps, epochs and evaluations."""

from mlf_jax.training.log_and_eval_steps import Timeline
from tests.training import tiny


def test_epochs_change_after_their_last_step():
  timeline = Timeline(tiny.config(), steps_per_epoch=4)
  assert [timeline.epoch(step) for step in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


def test_evaluations_and_lines():
  config = tiny.config(
    num_steps=0, num_epochs=3, log_every=3, eval_every_epochs=1.5
  )
  timeline = Timeline(config, steps_per_epoch=5)
  assert timeline.num_steps == 15
  steps = range(1, 16)
  evaluations = [step for step in steps if timeline.is_eval(step)]
  assert evaluations == [8, 15]
  lines = [step for step in steps if timeline.is_log_step(step)]
  assert lines == [3, 6, 8, 9, 12, 15]
  config.log_activity_every = 7
  timeline = Timeline(config, steps_per_epoch=5)
  assert [step for step in steps if timeline.is_activity_step(step)] == [7, 14]
  for step in range(16):
    later = [evaluation for evaluation in evaluations if evaluation > step]
    assert timeline.evaluations_after(step) == len(later)
