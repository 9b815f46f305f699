"""The fields of a configuration, their defaults and their validation.

A file under `configs/` starts from `default()` and changes what it needs. The
defaults are the recipe of the paper for CIFAR-10. Which fields there are
depends on the network, and on whether the data set is one of event cameras.
"""

import hashlib
import json
import math
from collections.abc import Mapping

import ml_collections

from mlf_jax import data, models
from mlf_jax.data.frames import BINNINGS
from mlf_jax.errors import UserError, unknown
from mlf_jax.models import memory
from mlf_jax.surrogate import SURROGATES
from mlf_jax.training import event_config

_MODELS = ('spiking_resnet', 'spiking_vgg16')
_DTYPES = ('float32', 'bfloat16', 'float64')
# The values of the fields that are names.
CHOICES = {
  'data.name': data.names(),
  'data.binning': BINNINGS,
  'model.name': _MODELS,
  'model.residual': ('ds', 'plain'),
  'model.shortcut': ('', 'mlf', 'norm'),
  'model.surrogate': SURROGATES,
  'model.dtype': _DTYPES,
  'optimizer.name': ('sgd', 'adamw'),
  'schedule.name': ('step', 'cosine', 'constant'),
  'memory': memory.MODES,
  'parallel': ('shard_map', 'pmap'),
}


def default(
  model: str = 'spiking_resnet', data_name: str = 'cifar10'
) -> ml_collections.ConfigDict:
  """A configuration with every field at its default.

  Args:
    model: 'spiking_resnet' or 'spiking_vgg16'; decides what `config.model`
      holds.
    data_name: one of `data.names()`; decides what `config.data` and
      `config.augment` hold.
  """
  c = ml_collections.ConfigDict()
  # Decides initialisation, order of the samples, augmentation and dropout.
  c.seed = 0
  # Of all devices together.
  c.batch_size = 64
  c.num_epochs = 110
  # Above 0, the number of training steps in place of num_epochs.
  c.num_steps = 0
  c.label_smoothing = 0.0
  # Above 0, an exponential moving average of the weights, over the training
  # steps, is evaluated.
  c.ema_decay = 0.0

  c.data = ml_collections.ConfigDict()
  c.data.name = data_name
  # Where prepared data sets lie; empty: $TFDS_DATA_DIR, ~/tensorflow_datasets.
  c.data.dir = ''
  # Folder with the archive as downloaded by hand; empty: download it.
  c.data.manual_dir = ''

  c.augment = ml_collections.ConfigDict()
  if data_name in data.event_names():
    event_config.add_fields(c)
  else:
    c.augment.flip = True
    # Pixels of padding before a random crop to the original size.
    c.augment.crop_padding = 4

  c.model = m = ml_collections.ConfigDict()
  m.name = model
  if model == 'spiking_resnet':
    m.depth = 20
    m.widths = (64, 128, 256)
    m.residual = 'ds'
    # How a projection shortcut ends; empty: 'mlf' for ds, 'norm' for plain.
    m.shortcut = ''
    # Blocks of a stage that are alike run in one loop: the same numbers to
    # rounding, and hundreds of layers compile in a minute or two. Measured on a
    # CPU: a step takes 4 to 19 % longer, and twice the bytes of the weights.
    m.scan_blocks = False
  elif model == 'spiking_vgg16':
    m.dropout_rate = 0.25
  if data_name in data.event_names():
    m.time_steps = data.default_frames(data_name).time_steps
  else:
    m.time_steps = 4
  m.thresholds = (0.6, 1.6, 2.6)
  m.decay = 0.25
  # Of the surrogate windows.
  m.width = 1.0
  m.surrogate = 'rectangular'
  m.normalize_input = False
  m.dtype = 'float32'

  c.optimizer = o = ml_collections.ConfigDict()
  o.name = 'sgd'
  o.learning_rate = 0.1
  # Of AdamW: the decay of the first moment.
  o.momentum = 0.9
  o.nesterov = False
  # sgd: L2, added to the gradient of every parameter; adamw: decoupled.
  o.weight_decay = 1e-4
  # Above 0, gradients are scaled down to this global norm.
  o.clip_norm = 0.0
  # Batches whose gradients are averaged for one update.
  o.accumulate_steps = 1

  c.schedule = s = ml_collections.ConfigDict()
  s.name = 'step'
  s.step_epochs = 40
  s.step_factor = 0.1
  s.warmup_epochs = 0.0

  # What is kept for the backward pass. The numbers are the same; measured on a
  # CPU with the paper's networks, as a part of what fastest takes:
  #   fastest   all that JAX keeps.
  #   balanced  72 to 81 % of the temporaries, 94 to 96 % of the time.
  #   smallest  52 to 71 % of the temporaries, 109 to 111 % of the time.
  c.memory = 'fastest'
  c.parallel = 'shard_map'
  # Steps between two lines of metrics.jsonl.
  c.log_every = 50
  # Evaluation and checkpoint after every so many epochs, and at the end.
  c.eval_every_epochs = 1.0
  # Of all devices together.
  c.eval_batch_size = 256
  # Last checkpoints kept; the best one is kept besides.
  c.keep_checkpoints = 3
  # Steps in a row without a finite gradient after which the run stops.
  c.max_skipped_steps = 10
  # A misspelt field in a configuration file is an error.
  return c.lock()


def validate(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Raises `UserError` for the first field that cannot be right.

  What only the data set can tell is left to it.

  Args:
    config: the configuration.
    num_devices: devices that a batch is divided among.

  Raises:
    UserError: names the field and what it may be.
  """
  flat = flatten(config)
  for field, choices in CHOICES.items():
    if field in flat and flat[field] not in choices:
      raise unknown(f'config.{field}', flat[field], choices)
  _validate_fields(config, flat)

  def require(ok, field, range_):
    if field in flat and not ok(flat[field]):
      raise UserError(f'config.{field} must be {range_}, got {flat[field]}')

  for field, value in flat.items():
    if isinstance(value, float):
      require(math.isfinite, field, 'finite')
    elif isinstance(value, int):
      require(lambda v: v < 2**31, field, 'below 2**31')
  for field in (
    'batch_size',
    'num_epochs',
    'log_every',
    'eval_batch_size',
    'keep_checkpoints',
    'max_skipped_steps',
    'schedule.step_epochs',
    'optimizer.accumulate_steps',
    'model.time_steps',
  ):
    require(lambda v: v >= 1, field, 'at least 1')
  for field in (
    'seed',
    'num_steps',
    'augment.crop_padding',
    'augment.translation',
    'augment.cutout',
    'augment.time_shift',
    'augment.mixup',
    'optimizer.weight_decay',
    'optimizer.clip_norm',
    'schedule.warmup_epochs',
  ):
    require(lambda v: v >= 0, field, 'at least 0')
  for field in ('optimizer.learning_rate', 'eval_every_epochs'):
    require(lambda v: v > 0, field, 'positive')
  for field in (
    'label_smoothing',
    'ema_decay',
    'augment.event_drop',
    'optimizer.momentum',
  ):
    require(lambda v: 0 <= v < 1, field, 'in [0, 1)')
  require(lambda v: 0 < v <= 1, 'schedule.step_factor', 'in (0, 1]')
  require(lambda v: len(v) == 3, 'model.widths', 'one width a stage, of three')
  require(lambda v: 0 <= v <= 180, 'augment.rotation', 'in [0, 180]')
  require(lambda v: v >= 1, 'data.downsample', 'at least 1')
  if config.data.name in data.event_names():
    event_config.validate(config)
  for field in ('batch_size', 'eval_batch_size'):
    if flat[field] % num_devices:
      near = max(1, round(flat[field] / num_devices)) * num_devices
      raise UserError(
        f'config.{field} {flat[field]} cannot be divided among {num_devices} '
        f'devices; {near} can'
      )
  # Before any download: what the network itself checks.
  make_model(config, num_classes=1, axis_name=None)


def _validate_fields(config, flat):
  """The fields are those of the network and the data set."""
  expected = flatten(default(config.model.name, config.data.name))
  different = flat.keys() ^ expected.keys()
  if not different:
    return
  of_model = [field for field in different if field.startswith('model.')]
  field = min(of_model or different)
  if of_model:
    cause, start = 'config.model.name', 'configs/cifar10.py:vgg16'
  else:
    cause, start = 'config.data.name', f'configs/{config.data.name}.py'
  name = config.model.name if of_model else config.data.name
  verb = 'is no field of' if field in flat else 'is missing for'
  raise UserError(
    f'config.{field} {verb} {name}; instead of changing {cause}, use a '
    f'configuration that starts from it, such as {start}'
  )


def make_model(
  config: ml_collections.ConfigDict, num_classes: int, axis_name: str | None
) -> models.SpikingResNet | models.SpikingVGG:
  """The network of a configuration.

  Raises:
    UserError: from the network, for an attribute outside its range.
  """
  attributes = config.model.to_dict() | {
    'num_classes': num_classes,
    'axis_name': axis_name,
    'memory': config.memory,
  }
  if attributes.pop('name') == 'spiking_vgg16':
    return models.SpikingVGG(**attributes)
  depth = attributes.pop('depth')
  attributes['stage_sizes'] = models.stage_sizes_for_depth(depth)
  attributes['shortcut'] = attributes['shortcut'] or None
  return models.SpikingResNet(**attributes)


def flatten(config: Mapping, prefix: str = '') -> dict[str, object]:
  """Dotted field names to values."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def as_json(config: ml_collections.ConfigDict) -> dict:
  """The configuration as it reads back from `config.json`."""
  return json.loads(json.dumps(config.to_dict()))


def from_json(stored: Mapping) -> ml_collections.ConfigDict:
  """The inverse of `as_json`.

  Raises:
    UserError: it is not a configuration of this version.
  """
  try:
    config = default(stored['model']['name'], stored['data']['name'])
    config.update(ml_collections.ConfigDict(_tuples(stored)))
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f'the stored configuration is of another version: {reason}'
    ) from None
  return config


def _tuples(value):
  if isinstance(value, Mapping):
    return {k: _tuples(v) for k, v in value.items()}
  return tuple(value) if isinstance(value, list) else value


def differing_fields(ours: Mapping, theirs: Mapping) -> list[str]:
  """Lines `field: ours, theirs` for the fields whose values differ."""
  ours, theirs = flatten(ours), flatten(theirs)
  absent = 'absent'
  return [
    f'config.{field}: {ours.get(field, absent)!r} here, '
    f'{theirs.get(field, absent)!r} there'
    for field in sorted(ours.keys() | theirs.keys())
    if ours.get(field, absent) != theirs.get(field, absent)
  ]


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Eight hexadecimal digits that tell configurations apart."""
  text = json.dumps(as_json(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
