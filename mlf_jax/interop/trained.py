"""A trained network in a program of one's own: load, classify, stream."""

import dataclasses
import functools
import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Real

from mlf_jax import stream
from mlf_jax.data.events.events import Events
from mlf_jax.data.events.frames import FrameSpec
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.errors import UserError, require_finite, require_positive_integers
from mlf_jax.interop import zoo
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.evaluation import restore_spec

_ZOO = 'zoo:'
# Samples that run at once; batches are filled up to powers of two, so that few
# programs are compiled.
_MOST_AT_ONCE = 256


class Prediction(NamedTuple):
  """Decisions about a batch.

  Attributes:
    names: name of the most probable class of each sample; its number as text
      if the classes have no names.
    probabilities: softmax of the logits, [batch, classes].
  """

  names: list[str]
  probabilities: Float[np.ndarray, 'batch classes']


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork:
  """A network with its weights and all that comes before and after it.

      net = mlf_jax.load('runs/digits')
      logits = net(images)  # raw, as the data set gives them
      net.predict(images).names

  Attributes:
    config: the configuration that it was trained with.
    model: the network.
    variables: `params` and `batch_stats`.
    preprocessing: shape of a sample, scaling, names of the classes.
    step: training steps after which the weights were saved.
  """

  config: ml_collections.ConfigDict
  model: nn.Module
  variables: dict[str, Any]
  preprocessing: Preprocessing
  step: int

  def __repr__(self) -> str:
    """Returns a line without the weights."""
    sizes = (leaf.size for leaf in jax.tree.leaves(self.variables['params']))
    time_steps = getattr(self.model, 'time_steps', self.config.model.time_steps)
    return (
      f'{type(self).__name__}({type(self.model).__name__}, {sum(sizes):,} '
      f'parameters, {self.preprocessing.num_classes} classes, {time_steps} '
      'timesteps)'
    )

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the classes; their numbers if they have none."""
    names = self.preprocessing.class_names
    return names or tuple(map(str, range(self.preprocessing.num_classes)))

  @property
  def frames(self) -> FrameSpec | None:
    """Specification of frames; None if no recordings were trained on."""
    return configured_data.load_options(self.config).frames

  @property
  def dtype(self) -> str:
    """Dtype of the input that the network gets."""
    return 'float64' if config_lib.is_float64(self.config) else 'float32'

  def __call__(
    self, samples: Real[np.ndarray, 'batch *sample']
  ) -> Float[np.ndarray, 'batch classes']:
    """Logits of raw samples, float32 or wider.

    Args:
      samples: images [batch, height, width, channel] or frames [batch, time,
        height, width, channel], as the data set gives them; any number.

    Raises:
      UserError: another shape than the network was trained on, or a number
        that is not finite.
    """
    samples = _as_array(samples, 'a network', 'batch, ', '[np.newaxis]')
    shape = self.preprocessing.sample_shape
    if samples.ndim != 1 + len(shape) or samples.shape[1:] != shape:
      raise UserError(
        f'samples must be [batch, {", ".join(map(str, shape))}], got shape '
        f'{samples.shape}'
      )
    require_finite('samples', samples)
    at_once = min(_MOST_AT_ONCE, 1 << max(0, len(samples) - 1).bit_length())
    logits = [np.empty((0, self.preprocessing.num_classes), self.dtype)]
    with jax.enable_x64(config_lib.is_float64(self.config)):
      for start in range(0, len(samples), at_once):
        batch = samples[start : start + at_once]
        filled = np.zeros((at_once, *shape), samples.dtype)
        filled[: len(batch)] = batch
        logits.append(np.asarray(self._apply(filled))[: len(batch)])
    return np.concatenate(logits)

  def predict(self, samples: Real[np.ndarray, 'batch *sample']) -> Prediction:
    """Classes and probabilities of raw samples; see `__call__`."""
    return self.decide(self(samples))

  def decide(self, logits: Float[np.ndarray, 'batch classes']) -> Prediction:
    """Classes and probabilities for logits."""
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    names = self.class_names
    return Prediction(
      [names[i] for i in logits.argmax(-1)], odds / odds.sum(-1, keepdims=True)
    )

  def stream(self, batch_size: int = 1) -> 'Stream':
    """A classifier for recordings that arrive in pieces.

    Args:
      batch_size: number of recordings that are fed side by side.
    """
    return Stream(self, batch_size)

  def _apply(self, samples):
    return _logits(self.model, self.preprocessing, self.dtype)(
      self.variables, samples
    )


def _as_array(samples, taker, batch='', as_batch=''):
  if isinstance(samples, Events):
    raise UserError(
      f'{taker} takes frames [{batch}time, height, width, channel], not '
      f'Events: net.frames.frames(recording){as_batch} makes them'
    )
  return np.asarray(samples)


class Stream:
  """The decision of a network about recordings that arrive in pieces.

  After every piece the logits are those for all frames so far.
  """

  def __init__(self, net: TrainedNetwork, batch_size: int):
    """Starts with units at rest."""
    self._net = net
    frame_shape = net.preprocessing.sample_shape[-3:]
    with jax.enable_x64(config_lib.is_float64(net.config)):
      self._state = stream.init(
        net.model, net.variables, frame_shape, batch_size
      )

  def feed(
    self, frames: Real[np.ndarray, 'batch time height width channel']
  ) -> Float[np.ndarray, 'batch classes']:
    """Feeds the next frames.

    Args:
      frames: raw frames, any number of timesteps; [time, height, width,
        channel] if there is one recording.

    Returns:
      The logits for all frames so far.

    Raises:
      UserError: frames of another shape than the network was trained on, or a
        number that is not finite.
    """
    net, frames = self._net, _as_array(frames, 'feed')
    if frames.ndim == 4:
      frames = frames[np.newaxis]
    with jax.enable_x64(config_lib.is_float64(net.config)):
      self._state, logits = stream.feed(
        net.model,
        net.variables,
        self._state,
        net.preprocessing.normalize(frames, net.dtype),
        check_finite=True,
      )
    return np.asarray(logits)


def load(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  time_steps: int | None = None,
) -> TrainedNetwork:
  """Loads the network of a run, or one that comes with the package.

      net = mlf_jax.load('zoo:digits')

  Args:
    workdir: directory of the run, or 'zoo:NAME'; `python -m mlf_jax zoo` lists
      the names.
    checkpoint: 'best' or 'last'; the zoo has the last one.
    time_steps: timesteps to run; those of training by default. Frames then
      have this many.

  Returns:
    The network with weights, preprocessing and names of classes.

  Raises:
    UserError: no run, no checkpoint, none that can be read, or no such network
      in the zoo.
  """
  if time_steps is not None:
    require_positive_integers(time_steps=time_steps)
  entry = None
  if (place := os.fspath(workdir)).startswith(_ZOO):
    entry = zoo.entry(place.removeprefix(_ZOO))
    config, preprocessing = entry.config, entry.preprocessing
  else:
    config = workdir_lib.stored_config(workdir)
    preprocessing = workdir_lib.stored_preprocessing(workdir)
  if preprocessing is None:  # Imported weights, not trained on yet.
    preprocessing = configured_data.load_dataset(config).preprocessing
  if time_steps is not None and len(preprocessing.sample_shape) == 4:
    preprocessing = dataclasses.replace(
      preprocessing, sample_shape=(time_steps, *preprocessing.sample_shape[1:])
    )
  if entry is None:
    spec = preprocessing.sample_shape, preprocessing.num_classes
    _, model, step, state = restore_spec(workdir, config, spec, checkpoint)
    variables = state.eval_variables
  else:
    model = config_lib.build_model(config, preprocessing.num_classes)
    # Arrays of NumPy would be sent to the device at each call.
    variables, step = jax.device_put(entry.variables), entry.step
  if time_steps is not None:
    model = model.clone(time_steps=time_steps)
  return TrainedNetwork(config, model, variables, preprocessing, step)


@functools.cache
def _logits(model, preprocessing, dtype):
  """The jitted function from variables and raw samples to logits."""

  @jax.jit
  def apply(variables, samples):
    return model.apply(variables, preprocessing.normalize(samples, dtype))

  return apply
