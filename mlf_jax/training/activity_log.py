"""Looks inside a network during training, by a program of its own.

The training step stays as it is: every `config.log_activity_every` steps
another compiled function passes over the batch of that step, with the weights
after it, and its results are a line of the metrics.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import flax.linen as nn
import jax
import ml_collections
from jaxtyping import Array, Float

from mlf_jax import activity
from mlf_jax.activity.capture import in_order
from mlf_jax.training.activity_pass import activity_step
from mlf_jax.training.logging import MetricsLog
from mlf_jax.training.sharding import DataParallel
from mlf_jax.training.state import TrainState
from mlf_jax.training.step import Batch, Normalize

# Shares of (unit, timestep) pairs: below the one with a spike a layer counts as
# silent, above the other with spikes of all levels as saturated.
SILENT, SATURATED = 0.001, 0.9
_ADVICE = {
  'silent': (
    'layers after it learn nothing from the input; usual remedies: a lower '
    'config.optimizer.weight_decay, which shrinks the gain of the '
    'normalisation, a lower config.optimizer.learning_rate, and '
    'config.model.normalize_input=True for sparse frames'
  ),
  'saturated': (
    'its output hardly depends on the input; usual remedies: a lower '
    'config.optimizer.learning_rate, more or higher config.unit.thresholds'
  ),
}


class ActivityLog:
  """Writes a line with firing rates, dormant shares and gradient norms."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    model: nn.Module,
    normalize: Normalize,
    sample_shape: tuple[int, ...],
    parallel: DataParallel,
    log: MetricsLog | None,
    say: Callable[[str], None],
  ):
    """Prepares the pass; it is compiled when it runs for the first time.

    Args:
      config: the configuration.
      model: the network; its `axis_name` is that of `parallel`.
      normalize: maps raw images to the network's input.
      sample_shape: shape of one sample.
      parallel: devices to run on.
      log: gets the lines; None in a process that does not write them.
      say: prints warnings.
    """
    self._model, self._sample_shape = model, sample_shape
    self._log, self._say = log, say
    self._pass = parallel.parallelize(
      functools.partial(
        activity_step, model=model, config=config, normalize=normalize
      )
    )
    self._order: list[str] | None = None
    self._warned: set[tuple[str, str]] = set()
    self._can_run = True

  def write(
    self, step: int, epoch: int, state: TrainState, batch: Batch
  ) -> None:
    """Runs the pass and writes its line; warns of layers that do not work.

    Args:
      step: number of the step.
      epoch: number of its epoch.
      state: state after the step.
      batch: the batch of the step, as training got it.
    """
    if not self._can_run:
      return
    try:
      layers, norms = jax.device_get(self._pass(state, batch))
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      # The training step alone may fit.
      self._can_run = False
      self._say(
        'warning: too little memory to look inside the network; training goes '
        'on without (config.log_activity_every=0 says so beforehand)'
      )
      return
    if self._order is None:
      # The batch may lie on other processes too.
      sample = jax.ShapeDtypeStruct((1, *self._sample_shape), 'float32')
      self._order = activity.depth_order(self._model, sample)
      if not layers:
        self._say(
          'note: these units have no method observe, so of what happens inside '
          'the network gradient norms alone are logged'
        )
    layers, norms = in_order(layers, self._order), in_order(norms, self._order)
    if self._log is not None:
      self._log.write(step, epoch, scalars(layers, norms))
    for path, kind in problems(layers):
      if (path, kind) not in self._warned:
        self._warned.add((path, kind))
        rate = layers[path].firing_rate
        self._say(
          f'warning: {path} is {kind} at step {step} (firing rate {rate:.4f} '
          f'of {layers[path].num_levels}): {_ADVICE[kind]}; see docs/silent.md'
        )


def scalars(
  layers: Mapping[str, activity.LayerActivity],
  norms: Mapping[str, Float[Array, '']],
) -> dict[str, float]:
  """Slash-separated names to numbers, for a line of the metrics."""
  line = {}
  for path, layer in layers.items():
    line[f'activity/{path}/firing_rate'] = layer.firing_rate
    line[f'activity/{path}/dormant_share'] = layer.dormant_share
  for path, norm in norms.items():
    line[f'activity/{path}/gradient_norm'] = float(norm)
  line['activity/gradient_norm_last_to_first'] = activity.last_to_first(norms)
  return line


def problems(
  layers: Mapping[str, activity.LayerActivity],
) -> Iterator[tuple[str, str]]:
  """Yields layers that are 'silent' or 'saturated', with the word."""
  for path, layer in layers.items():
    silent, *_, all_levels = layer.output_distribution
    if 1 - silent < SILENT:
      yield path, 'silent'
    elif all_levels > SATURATED:
      yield path, 'saturated'
