"""The learning-rate schedule and the optax transformation."""

import ml_collections
import optax


def make_schedule(
  config: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int
) -> optax.Schedule:
  """Makes the learning rate as a function of the update.

  Args:
    config: the configuration.
    steps_per_epoch: training steps in an epoch.
    num_steps: training steps of the whole run.

  Returns:
    A function from the number of updates done (steps divided by
    `optimizer.accumulate_steps`) to the learning rate. 'step' multiplies by
    `step_factor` every `step_epochs`; 'cosine' falls to 0 at the end; a
    warm-up rises linearly from 0. A skipped step is no update, so it delays
    what follows by one step.
  """
  peak = config.optimizer.learning_rate
  every = config.optimizer.accumulate_steps

  def updates(steps):
    return round(steps / every)

  warmup = updates(config.schedule.warmup_epochs * steps_per_epoch)
  total = updates(num_steps)
  if config.schedule.name == 'step':
    period = config.schedule.step_epochs * steps_per_epoch
    schedule = optax.piecewise_constant_schedule(
      peak,
      {
        updates(step) - warmup: config.schedule.step_factor
        for step in range(period, num_steps, period)
      },
    )
  elif config.schedule.name == 'cosine':
    schedule = optax.cosine_decay_schedule(peak, max(1, total - warmup))
  else:
    schedule = optax.constant_schedule(peak)
  if warmup:
    rise = optax.linear_schedule(0.0, peak, warmup)
    schedule = optax.join_schedules([rise, schedule], [warmup])
  return schedule


def make_optimizer(
  config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Chains clipping, L2 or decoupled weight decay, the rule, accumulation.

  Args:
    config: the configuration.
    schedule: learning rate as a function of the update.
  """
  c = config.optimizer

  def chain(learning_rate):
    if c.name == 'adamw':
      rules = [
        optax.adamw(
          learning_rate,
          c.momentum,
          weight_decay=c.weight_decay,
          nesterov=c.nesterov,
        )
      ]
    else:
      rules = [
        optax.add_decayed_weights(c.weight_decay),
        optax.sgd(learning_rate, c.momentum or None, nesterov=c.nesterov),
      ]
    if c.clip_norm:
      rules.insert(0, optax.clip_by_global_norm(c.clip_norm))
    return optax.chain(*rules)

  # This keeps the learning rate in the state, where it can be read.
  optimizer = optax.inject_hyperparams(chain)(learning_rate=schedule)
  if c.accumulate_steps > 1:
    steps = optax.MultiSteps(optimizer, c.accumulate_steps)
    optimizer = steps.gradient_transformation()
  return optimizer


def learning_rate(opt_state: optax.OptState):
  """Reads the learning rate of the latest update from the state."""
  return optax.tree_utils.tree_get(opt_state, 'hyperparams')['learning_rate']
