"""A spiking network as a classifier of scikit-learn."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
  _check_sample_weight,
  check_is_fitted,
  validate_data,
)

from mlf_jax import data
from mlf_jax.errors import UserError, require_positive_integers, unknown
from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data, in_memory

# Parameters of the estimator that are fields of a configuration.
_FIELDS = {
  'depth': 'model.depth',
  'widths': 'model.widths',
  'time_steps': 'model.time_steps',
  'thresholds': 'unit.thresholds',
  'decay': 'unit.decay',
  'num_epochs': 'num_epochs',
  'batch_size': 'batch_size',
  'learning_rate': 'optimizer.learning_rate',
  'weight_decay': 'optimizer.weight_decay',
  'validation': 'data.validation',
}
# Sections and fields that the parameter `config` may set, those above apart.
_SETTABLE = (*in_memory.PROGRAM_FIELDS, 'schedule')
# Checks of scikit-learn: finite numbers, at least one sample.
_CHECKS = {'dtype': (np.float32, np.uint8), 'allow_nd': True}


class SpikingClassifier(ClassifierMixin, BaseEstimator):
  """Spiking DS-ResNet with multi-level firing units, for scikit-learn.

      classifier = SpikingClassifier(image_shape=(8, 8), random_state=0)
      classifier.fit(X, y).predict(X)

  Trains as `mlf_jax.training.train` does, but in memory, without files, and on
  JAX's default device alone. X is one of:

  - [samples, features]: each sample is an image of one row and one channel, or
    of the `image_shape`;
  - images [samples, height, width, channel];
  - frames [samples, time, height, width, channel], with `time_steps` frames.

  Images are normalised by the mean and standard deviation of each channel over
  the training samples, frames are not. The features of a sample are all one
  channel: put a StandardScaler in front where they have units of their own.
  Fits that differ only in X's values, `random_state`, `num_epochs`,
  `learning_rate`, `weight_decay` or `schedule` share their compiled programs.

  Parameters (all are checked by `fit`):
    depth: layers, 6n + 2 for n blocks per stage: 8, 14, 20, ...
    widths: channels of the three stages.
    time_steps: timesteps T.
    thresholds: one per level of a unit, in units of the membrane potential.
    decay: decay of the membrane potential per timestep, 0 to 1.
    image_shape: (height, width), (height, width, channel) or
      (time, height, width, channel) of the samples of a two-dimensional X.
    num_epochs: passes over the training samples. Each is of full batches, and
      drops the few samples that are left over, other ones in each.
    batch_size: samples per training step, of all samples if there are fewer;
      predictions are computed in batches of this size too.
    learning_rate: largest learning rate; it rises for one epoch and falls to 0
      along a cosine. `config` has other schedules.
    weight_decay: L2, added to the gradient of every parameter.
    validation: share of the training samples, of each class alike, that is held
      out; the weights of the epoch with the best accuracy on it are kept, the
      later one of equals. 0: those of the last epoch.
    config: further fields of a configuration by their dotted names, such as
      `{'optimizer.name': 'adamw', 'augment.crop_padding': 1}`. The sections are
      augment, model, optimizer, schedule and unit; `python train.py --help`
      explains the fields. Nothing is augmented by default.
    warm_start: True to start from the weights of the last fit; the optimiser
      starts anew.
    random_state: seed, or generator, of the weights, the order of the samples,
      the augmentation and the samples held out.
    verbose: above 0, prints a line per epoch.

  Attributes:
    classes_: the labels, sorted.
    n_features_in_: number of features, if X had two dimensions.
    feature_names_in_: names of the features, if X had names.
    sample_shape_: shape of a sample as the network gets it.
    config_: the configuration (`ml_collections.ConfigDict`).
    model_: the network (`flax.linen.Module`).
    variables_: its `params` and `batch_stats`, NumPy arrays.
    scaling_: mean and standard deviation of each channel;
      `model_.apply(variables_, scaling_(images, 'float32'))` are logits.
    loss_curve_: mean training loss of each epoch.
    validation_scores_: accuracy on the samples held out, after each epoch; None
      without `validation`.
  """

  def __init__(
    self,
    *,
    depth: int = 8,
    widths: tuple[int, ...] = (16, 32, 64),
    time_steps: int = 4,
    thresholds: tuple[float, ...] = (0.6, 1.6, 2.6),
    decay: float = 0.25,
    image_shape: tuple[int, ...] | None = None,
    num_epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    validation: float = 0.0,
    config: Mapping[str, object] | None = None,
    warm_start: bool = False,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
  ):
    """Stores the parameters."""
    self.depth = depth
    self.widths = widths
    self.time_steps = time_steps
    self.thresholds = thresholds
    self.decay = decay
    self.image_shape = image_shape
    self.num_epochs = num_epochs
    self.batch_size = batch_size
    self.learning_rate = learning_rate
    self.weight_decay = weight_decay
    self.validation = validation
    self.config = config
    self.warm_start = warm_start
    self.random_state = random_state
    self.verbose = verbose

  def fit(
    self,
    X: Real[np.ndarray, 'n *sample'],
    y: Shaped[np.ndarray, 'n'],
    sample_weight: Real[np.ndarray, 'n'] | None = None,
  ) -> 'SpikingClassifier':
    """Trains the network.

    Args:
      X: the samples, any real numbers; uint8 stays uint8 in memory.
      y: their labels, numbers or strings.
      sample_weight: multiplies the loss of each sample. tdBN's statistics see
        each sample once, whatever its weight; a sample with the weight 0 is
        left out altogether.

    Raises:
      ValueError: X, y or sample_weight cannot be used, in scikit-learn's words.
      UserError: a ValueError too; a parameter is wrong, or too many steps in a
        row were not finite.
    """
    # --- Samples ---
    X, y = validate_data(self, X, y, **_CHECKS)
    if X.ndim > 2:
      # scikit-learn counts the rows of an image.
      del self.n_features_in_
    images = self._images(X)
    check_classification_targets(y)
    weights = _check_sample_weight(
      sample_weight, X, dtype=np.float32, ensure_non_negative=True
    )
    if not weights.any():
      raise UserError('sample_weight must hold a weight above 0')
    classes, labels = np.unique(y, return_inverse=True)
    samples = in_memory.Samples(images, labels.astype(np.int32), weights)
    if not weights.all():
      samples = in_memory.Samples(*(array[weights > 0] for array in samples))

    # --- Configuration ---
    config = self._configuration(is_frames=images.ndim == 5)
    config_lib.validate(config, num_devices=1)
    split = data.Split(samples.images, samples.labels)
    configured_data.sample_spec(
      config,
      data.Dataset('X', 'given', len(classes), split, split, 1.0, (), ()),
    )
    config.seed = check_random_state(self.random_state).randint(2**31 - 1)
    held_out = None
    if config.data.validation:
      parts = train_test_split(
        *samples,
        test_size=config.data.validation,
        stratify=samples.labels,
        random_state=config.seed,
      )
      samples = in_memory.Samples(*parts[::2])
      held_out = in_memory.Samples(*parts[1::2])
    config.eval_batch_size = config.batch_size
    config.batch_size = min(config.batch_size, len(samples.labels))
    scaling = _scaling(samples.images)

    # --- Training ---
    loss_curve, scores, variables = [], [], None
    with jax.enable_x64(config_lib.is_float64(config)):
      programs = in_memory.programs(config, images.shape[1:], len(classes))
      first = programs.init(np.int32(config.seed))
      if self.warm_start and hasattr(self, 'variables_'):
        first = self._with_last_weights(first, classes)
      for state, metrics in in_memory.train_epochs(
        config, programs, first, samples, scaling
      ):
        loss_curve.append(metrics['loss'])
        if held_out is not None:
          metrics['validation accuracy'] = _accuracy(
            programs, state, held_out, scaling, config
          )
          scores.append(metrics['validation accuracy'])
        if not scores or scores[-1] == max(scores):
          variables = _on_host(state.eval_variables)
        if self.verbose:
          values = (f'  {name} {value:.4f}' for name, value in metrics.items())
          epoch = f'epoch {len(loss_curve)}/{config.num_epochs}'
          print(epoch, *values, sep='', flush=True)

    # --- Result ---
    self.classes_ = classes
    self.sample_shape_ = samples.images.shape[1:]
    self.config_ = config
    self.variables_ = variables
    self.scaling_ = scaling
    self.loss_curve_ = loss_curve
    self.validation_scores_ = scores or None
    return self

  @property
  def model_(self) -> nn.Module:
    """The network."""
    check_is_fitted(self)
    return config_lib.build_model(self.config_, len(self.classes_))

  def decision_function(
    self, X: Real[np.ndarray, 'n *sample']
  ) -> Float[np.ndarray, 'n *classes']:
    """Logits [samples, classes]; for two classes their difference [samples].

    Args:
      X: samples, shaped like those of `fit`.

    Raises:
      ValueError: X cannot be used; or the estimator is not fitted.
    """
    logits = self._logits(X)
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

  def predict_proba(
    self, X: Real[np.ndarray, 'n *sample']
  ) -> Float[np.ndarray, 'n classes']:
    """Probability of each class; arguments as in `decision_function`."""
    return softmax(self._logits(X).astype(np.float64))

  def predict(
    self, X: Real[np.ndarray, 'n *sample']
  ) -> Shaped[np.ndarray, 'n']:
    """Label of each sample; arguments as in `decision_function`."""
    winners = self._logits(X).argmax(-1)
    return self.classes_[winners]

  def _logits(self, X):
    check_is_fitted(self)
    X = validate_data(self, X, reset=False, **_CHECKS)
    images = self._images(X)
    if images.shape[1:] != self.sample_shape_:
      raise UserError(
        f'X holds samples of shape {images.shape[1:]}, but SpikingClassifier '
        f'was fitted on samples of shape {self.sample_shape_}'
      )
    config = self.config_
    with jax.enable_x64(config_lib.is_float64(config)):
      return in_memory.batch_logits(
        in_memory.programs(config, self.sample_shape_, len(self.classes_)),
        self.variables_,
        images,
        self.scaling_,
        config.eval_batch_size,
      )

  def _images(self, X):
    """Images or frames of a validated X."""
    shape = self.image_shape
    if shape is not None:
      shape = tuple(np.ravel(shape).tolist())
      require_positive_integers(image_shape=shape)
      if not 2 <= len(shape) <= 4:
        raise UserError(
          'image_shape must be (height, width), (height, width, channel) or '
          f'(time, height, width, channel), got {self.image_shape!r}'
        )
      shape += (1,) * (3 - len(shape))
    if X.ndim == 2:
      shape = shape or (1, X.shape[1], 1)
      if math.prod(shape) != X.shape[1]:
        raise UserError(
          f'image_shape {self.image_shape} needs {math.prod(shape)} features, '
          f'but X has {X.shape[1]}'
        )
      return X.reshape(-1, *shape)
    if X.ndim == 3 or X.ndim > 5 or shape not in (None, X.shape[1:]):
      raise UserError(
        'X must be [samples, features], images [samples, height, width, '
        'channel] or frames [samples, time, height, width, channel]'
        + (f' of shape {shape}' if shape else '')
        + f', got shape {X.shape}'
      )
    if 0 in X.shape:
      raise UserError(f'X is empty: its shape is {X.shape}')
    return X

  def _configuration(self, is_frames):
    """The configuration that the parameters make, not yet validated."""
    config = config_lib.default(data='frame_arrays' if is_frames else 'arrays')
    config.schedule.name, config.schedule.warmup_epochs = 'cosine', 1.0
    for name, value in config.augment.items():
      config.augment[name] = type(value)()
    further = self.config or {}
    if not isinstance(further, Mapping):
      raise UserError(
        'config must map dotted names of fields to values, got '
        f'{type(further).__name__}'
      )
    settable = [
      name
      for name in config_lib.flatten(config)
      if name.split('.')[0] in _SETTABLE
      and name not in ('model.name', 'unit.name', *_FIELDS.values())
    ]
    for name in further:
      if name not in settable:
        raise unknown('field of config', name, settable)
    own = {
      name: (field, getattr(self, name)) for name, field in _FIELDS.items()
    }
    others = {f'config[{name!r}]': (name, v) for name, v in further.items()}
    for argument, (name, value) in (own | others).items():
      section, _, leaf = name.rpartition('.')
      fields = config[section] if section else config
      try:
        # Searches draw NumPy's numbers; a configuration holds Python's.
        value = np.asarray(value).tolist()
        fields[leaf] = tuple(value) if isinstance(value, list) else value
      except (TypeError, ValueError):
        kind = type(fields[leaf]).__name__
        raise UserError(
          f'{argument} must be of type {kind}, got {value!r}'
        ) from None
    return config

  def _with_last_weights(self, state, classes):
    """The first state, with the weights of the last fit."""
    last = self.variables_
    new = {'params': state.params, 'batch_stats': state.batch_stats}
    if not np.array_equal(classes, self.classes_) or (
      jax.tree.map(np.shape, last) != jax.tree.map(np.shape, new)
    ):
      raise UserError(
        'warm_start needs the classes and the network of the last fit: '
        f'{len(self.classes_)} classes, samples of shape {self.sample_shape_}; '
        'warm_start=False starts anew'
      )
    state = state.replace(**_copied(last))
    if state.ema_params is not None:
      state = state.replace(ema_params=_copied(last)['params'])
    return state


# The buffers of a state are donated: none may be that of a NumPy array.
_copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


def _scaling(images):
  """Mean and standard deviation per channel; 0 and 1 for frames."""
  if images.ndim == 5:
    mean, std = np.zeros((1, 1, 1, 1, 1)), np.ones((1, 1, 1, 1, 1))
  else:
    options = {'axis': (0, 1, 2), 'keepdims': True}
    mean = images.mean(dtype=np.float64, **options)
    std = images.std(dtype=np.float64, **options)
    std[images.max(**options) == images.min(**options)] = 1
  return in_memory.Scaling(mean.astype('float32'), std.astype('float32'))


def _accuracy(programs, state, samples, scaling, config):
  """Accuracy of the averaged weights, if there are any, on weighted samples."""
  logits = in_memory.batch_logits(
    programs,
    state.eval_variables,
    samples.images,
    scaling,
    config.eval_batch_size,
  )
  correct = logits.argmax(-1) == samples.labels
  return float(np.average(correct, weights=samples.weights))


def _on_host(variables):
  """Copies, since the buffers of a state are donated."""
  return jax.tree.map(np.array, jax.device_get(variables))
