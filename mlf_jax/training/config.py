"""Fields of a configuration, each declared once, and what is made of them.

Defaults, validation and `--help` follow from the tables below; the defaults are
the paper's recipe for CIFAR-10. A file under `configs/` starts from `default()`
and changes what it needs. Which fields a section has depends on the network,
the data set and the spiking unit.
"""

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Callable, Mapping

import flax.linen as nn
import ml_collections

from mlf_jax import data as data_lib
from mlf_jax import models
from mlf_jax.data.events.frames import BINNINGS
from mlf_jax.errors import UserError
from mlf_jax.fields import Field, defaults, fields_of
from mlf_jax.layers import NORMALIZATIONS, UNITS
from mlf_jax.layers.memory import MODES
from mlf_jax.registry import Registry
from mlf_jax.training.losses import LOSSES

_RUN = (
  Field(
    'seed',
    0,
    'decides initialisation, order of the samples, augmentation and dropout',
    low=0,
  ),
  Field('batch_size', 64, 'samples per step, on all devices together', low=1),
  Field('num_epochs', 110, 'passes over the training set', low=1),
  Field('num_steps', 0, 'training steps, 0: those of num_epochs', low=0),
  Field('loss', 'cross_entropy', 'loss to minimise', choices=LOSSES),
  Field(
    'label_smoothing',
    0.0,
    'share of each label that is spread evenly over all classes',
    low=0,
    below=1,
  ),
  Field(
    'ema_decay',
    0.0,
    'decay per step of an average of the weights, evaluated instead; 0: none',
    low=0,
    below=1,
  ),
  Field(
    'memory',
    'fastest',
    'what is kept for the backward pass, from everything to inputs of blocks '
    'alone, whose rest is computed again, a little slower; same numbers',
    choices=MODES,
  ),
  Field(
    'parallel',
    'shard_map',
    'how a step runs on all devices; same numbers',
    choices=('shard_map', 'pmap'),
  ),
  Field('log_every', 50, 'steps per line of metrics.jsonl', low=1),
  Field(
    'eval_every_epochs',
    1.0,
    'epochs between two evaluations, each followed by a checkpoint',
    above=0,
  ),
  Field(
    'eval_batch_size',
    256,
    'samples per evaluation step, on all devices together',
    low=1,
  ),
  Field(
    'keep_checkpoints', 3, 'last checkpoints kept, besides the best one', low=1
  ),
  Field(
    'max_skipped_steps',
    10,
    'steps in a row that are not finite after which training stops',
    low=1,
  ),
)

# Where a data set that is loaded by its name is stored.
_STORAGE = (
  Field(
    'dir',
    '',
    "folder of prepared data sets, '': $TFDS_DATA_DIR or ~/tensorflow_datasets",
  ),
  Field(
    'manual_dir',
    '',
    "folder with the archive as downloaded by hand, '': download it",
  ),
)
# How recordings become frames; the defaults are those of the data set.
_FRAMES = (
  Field(
    'split',
    '',
    "division into training and test samples: 'tail', 'head', 'random' or "
    "'random-SEED'; '' if the data set comes divided",
  ),
  Field(
    'binning',
    'window',
    'frames of fixed windows, of equal parts of the recording (span), or of '
    'equally many events (count)',
    choices=BINNINGS,
  ),
  Field('window_ms', 0.0, 'milliseconds per window, 0 for the others', low=0),
  Field(
    'downsample',
    1.0,
    'sensor pixels per frame pixel, along each side',
    low=1,
  ),
)
_ARRAYS = (
  Field('digest', '', 'hash of the arrays that were handed over, set by train'),
)

_EVERY_MODEL = (
  Field('time_steps', 4, 'timesteps T', low=1),
  Field(
    'normalization', 'tdbn', 'normalisation layers', choices=NORMALIZATIONS
  ),
  Field(
    'normalize_input', False, 'normalise the input, without gamma and beta'
  ),
  Field(
    'dtype',
    'float32',
    'dtype of convolutions; membrane potentials, statistics and parameters '
    'are float32 or wider',
    choices=('float32', 'bfloat16', 'float64'),
  ),
)
_RESNET = (
  Field('depth', 20, 'layers, 6n + 2 for n blocks per stage', low=8),
  Field('widths', (64, 128, 256), 'channels of each of the 3 stages', low=1),
  Field('residual', 'ds', 'residual block', choices=models.BLOCKS),
  Field(
    'shortcut',
    '',
    "end of a projection shortcut; '': mlf for ds, norm for plain",
    choices=('', 'mlf', 'norm'),
  ),
  Field(
    'scan_blocks',
    False,
    'run the blocks of a stage that are alike in one loop: hundreds of layers '
    'compile in a minute or two, a step is somewhat slower',
  ),
)
_VGG = (
  Field(
    'dropout_rate',
    0.25,
    'dropout after each dense spiking layer',
    low=0,
    below=1,
  ),
)

_OPTIMIZER = (
  Field('name', 'sgd', 'optimiser', choices=('sgd', 'adamw')),
  Field('learning_rate', 0.1, 'largest learning rate', above=0),
  Field(
    'momentum',
    0.9,
    'momentum; for adamw the decay of the first moment',
    low=0,
    below=1,
  ),
  Field('nesterov', False, 'Nesterov momentum'),
  Field(
    'weight_decay',
    1e-4,
    'sgd: L2, added to the gradient of every parameter; adamw: decoupled',
    low=0,
  ),
  Field('clip_norm', 0.0, 'largest norm of the gradient, 0: any', low=0),
  Field(
    'accumulate_steps',
    1,
    'batches whose gradients are averaged for one update',
    low=1,
  ),
)
_SCHEDULE = (
  Field(
    'name',
    'step',
    'learning rate over time',
    choices=('step', 'cosine', 'constant'),
  ),
  Field('step_epochs', 40, 'step: epochs between two drops', low=1),
  Field('step_factor', 0.1, 'step: factor of each drop', above=0, high=1),
  Field('warmup_epochs', 0.0, 'epochs of linear rise from 0', low=0),
)


@dataclasses.dataclass(frozen=True)
class NetworkEntry:
  """A network that `config.model.name` can choose.

  Attributes:
    build: makes the network from the fields of `config.model` and
      `num_classes`, `unit`, `memory` and `axis_name`.
    fields: fields of `config.model` besides those that every network has:
      `time_steps`, `normalization`, `normalize_input`, `dtype`.
  """

  build: Callable[..., nn.Module]
  fields: tuple[Field, ...] = ()


def _build_resnet(*, depth, shortcut, **attributes):
  return models.SpikingResNet(
    stage_sizes=models.stage_sizes_for_depth(depth),
    shortcut=shortcut or None,
    **attributes,
  )


NETWORKS: Registry[NetworkEntry] = Registry('network')
NETWORKS['spiking_resnet'] = NetworkEntry(_build_resnet, _RESNET)
NETWORKS['spiking_vgg16'] = NetworkEntry(models.SpikingVGG, _VGG)

_CHOSEN = {
  'model': Field('name', 'spiking_resnet', 'network', choices=NETWORKS),
  'data': Field('name', 'cifar10', 'data set', choices=data_lib.DATASETS),
  'unit': Field('name', 'mlf', 'spiking unit', choices=UNITS),
}


def declared_fields(
  model: str, data: str, unit: str
) -> dict[str, tuple[Field, ...]]:
  """Fields of each section of a configuration, of the top level under ''.

  Args:
    model: name of the network.
    data: name of the data set.
    unit: name of the spiking unit.

  Raises:
    UserError: one of the names is unknown.
  """
  for section, name in ('model', model), ('data', data), ('unit', unit):
    _CHOSEN[section].check(name, f'config.{section}')
  entry = data_lib.DATASETS[data]
  data_fields, time_steps = _STORAGE, {}
  if entry.num_classes is None:  # Arrays of the user's own.
    data_fields = _ARRAYS
  if entry.frames is not None:
    time_steps = {'time_steps': entry.frames.time_steps}
    data_fields += _with_defaults(
      _FRAMES,
      split=entry.default_split,
      binning=entry.frames.binning,
      window_ms=entry.frames.window_us / 1000,
      downsample=float(entry.frames.downsample),
    )
  return {
    '': _RUN,
    'data': (_named('data', data), *data_fields),
    'augment': data_lib.augmentation_fields(entry.is_frames),
    'model': (
      _named('model', model),
      *NETWORKS[model].fields,
      *_with_defaults(_EVERY_MODEL, **time_steps),
    ),
    'unit': (_named('unit', unit), *fields_of(UNITS[unit])),
    'optimizer': _OPTIMIZER,
    'schedule': _SCHEDULE,
  }


def _named(section, name):
  return dataclasses.replace(_CHOSEN[section], default=name)


def _with_defaults(fields, **values):
  return tuple(
    dataclasses.replace(field, default=values.get(field.name, field.default))
    for field in fields
  )


def default(
  model: str = 'spiking_resnet', data: str = 'cifar10', unit: str = 'mlf'
) -> ml_collections.ConfigDict:
  """Makes a configuration with every field at its default.

  Args:
    model: name of the network, one of `NETWORKS`.
    data: name of the data set, one of `data.DATASETS`; 'arrays' and
      'frame_arrays' stand for arrays of your own, which are handed to `train`.
    unit: name of the spiking unit, one of `layers.UNITS`.

  Returns:
    The configuration, locked: a misspelt field in a configuration file is an
    error.

  Raises:
    UserError: one of the names is unknown.
  """
  config = ml_collections.ConfigDict()
  for section, fields in declared_fields(model, data, unit).items():
    if section:
      config[section] = ml_collections.ConfigDict()
    (config[section] if section else config).update(defaults(fields))
  return config.lock()


def validate(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Checks every field, as far as that needs neither network nor data.

  Args:
    config: the configuration.
    num_devices: devices that a batch is divided among.

  Raises:
    UserError: names the first field that is wrong and what it may be.
  """
  names = {section: config[section]['name'] for section in _CHOSEN}
  declared = declared_fields(**names)
  _check_names(config, declared, names)
  for section, fields in declared.items():
    values = config[section] if section else config
    for field in fields:
      field.check(
        values[field.name], f'config.{section}' if section else 'config'
      )
  for name in ('batch_size', 'eval_batch_size'):
    if config[name] % num_devices:
      near = max(1, round(config[name] / num_devices)) * num_devices
      raise UserError(
        f'config.{name} {config[name]} cannot be divided among {num_devices} '
        f'devices; {near} can'
      )


def _check_names(config, declared, names):
  """Checks that there are the declared fields and no others."""
  expected = {
    f'{section}.{field.name}' if section else field.name
    for section, fields in declared.items()
    for field in fields
  }
  present = flatten(config)
  if present.keys() == expected:
    return
  field = min(present.keys() ^ expected)
  section = field.partition('.')[0]
  section = section if section in names else 'data'
  raise UserError(
    f'config.{field} {"is no field" if field in present else "is missing"} for '
    f'{names[section]}; config.{section}.name is chosen where the '
    f'configuration is made, as default({section}={names[section]!r}) does'
  )


def build_model(
  config: ml_collections.ConfigDict,
  num_classes: int,
  axis_name: str | None = None,
) -> nn.Module:
  """Builds the network of a configuration.

  Args:
    config: the configuration.
    num_classes: number of classes.
    axis_name: mesh or `pmap` axis over which batches are divided.

  Raises:
    UserError: an attribute of the network or of its unit is wrong.
  """
  unit = config.unit.to_dict()
  attributes = config.model.to_dict()
  network = NETWORKS[attributes.pop('name')]
  return network.build(
    unit=UNITS[unit.pop('name')](**unit),
    num_classes=num_classes,
    memory=config.memory,
    axis_name=axis_name,
    **attributes,
  )


def is_float64(config: ml_collections.ConfigDict) -> bool:
  """True if the run needs JAX's 64-bit mode."""
  return config.model.get('dtype') == 'float64'


def help_text(config: ml_collections.ConfigDict) -> str:
  """Lists every field with its value, explanation and range."""
  lines = []
  names = {section: config[section]['name'] for section in _CHOSEN}
  for section, fields in declared_fields(**names).items():
    values = config[section] if section else config
    for field in fields:
      flag = f'{section}.{field.name}' if section else field.name
      text = field.help + (f' ({field.range})' if field.range else '')
      lines += [
        f'  --config.{flag}={values[field.name]}',
        *textwrap.wrap(
          text, 72, initial_indent=' ' * 6, subsequent_indent=' ' * 6
        ),
      ]
  return '\n'.join(lines)


def flatten(config: Mapping, prefix: str = '') -> dict[str, object]:
  """Maps dotted names of fields to their values."""
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
  """Makes the configuration that `as_json` stored.

  Raises:
    UserError: it is not a configuration of this version, or names a part that
      is not registered.
  """
  try:
    names = {section: stored[section]['name'] for section in _CHOSEN}
    config = default(**names)
    config.update(ml_collections.ConfigDict(_tuples(stored)))
  except UserError:
    raise
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
  """Lists the fields whose values differ, with both values."""
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
