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
from mlf_jax.errors import UserError, unknown
from mlf_jax.fields import Field, fields_of
from mlf_jax.layers import NORMALIZATIONS, UNITS
from mlf_jax.layers.memory_modes import MODES
from mlf_jax.registry import Registry, instance_of
from mlf_jax.training.losses import LOSSES

# One entry per field: name, default, range, explanation.
# fmt: off
_RUN = (
  Field('init_from', '', help=
    "run whose weights training starts from: its workdir, for the best "
    "checkpoint, or WORKDIR/checkpoints/STEP; '': weights are drawn"),
  Field('seed', 0, low=0, help=
    'decides initialisation, order of the samples, augmentation and dropout'),
  Field('batch_size', 64, low=1, help=
    'samples per training step, on all devices together'),
  Field('num_epochs', 110, low=1, help='passes over the training set'),
  Field('num_steps', 0, low=0, help=
    'training steps; 0: as many as num_epochs makes'),
  Field('loss', 'cross_entropy', choices=LOSSES, help='loss to minimise'),
  Field('label_smoothing', 0.0, low=0, below=1, help=
    'share of each label that is spread evenly over all classes'),
  Field('random_time_steps', False, help=
    'train each sample on the mean logits of its first t timesteps, t drawn '
    'anew at each step, from 1 to T: one network for any number of timesteps'),
  Field('ema_decay', 0.0, low=0, below=1, help=
    'above 0, an average of the weights with this decay per step is evaluated'),
  Field('memory', 'fastest', choices=MODES, help=
    'what is kept for the backward pass: everything; inputs of convolutions as '
    'bytes; or inputs of blocks alone, a little slower; the same numbers'),
  Field('parallel', 'shard_map', choices=('shard_map', 'pmap'), help=
    'how a step runs on all devices; the same numbers'),
  Field('log_every', 50, low=1, help='training steps per line of metrics'),
  Field('log_activity_every', 1000, low=0, help=
    'training steps per line of metrics with firing rates, dormant units and '
    'gradient norms; 0: none; the training is the same'),
  Field('eval_every_epochs', 1.0, above=0, help=
    'epochs per evaluation, which a checkpoint follows'),
  Field('eval_batch_size', 256, low=1, help=
    'samples per evaluation step, on all devices together'),
  Field('keep_checkpoints', 3, low=1, help=
    'number of last checkpoints that are kept, besides the best'),
  Field('max_skipped_steps', 10, low=1, help=
    'steps in a row without a finite gradient after which training stops'),
)

_EVERY_DATASET = (
  Field('train_samples', 0, low=0, help=
    'training samples that are kept, of each class alike, besides those held '
    'out for validation; 0: all'),
  Field('validation', 0.0, low=0, below=1, help=
    'share of the training samples, of each class alike, that is held out to '
    'choose the best checkpoint; 0: the test set chooses it'),
)
# Where a data set that is loaded by its name is stored.
_STORAGE = (
  Field('dir', '', help=
    "folder of prepared data sets; '': $TFDS_DATA_DIR, ~/tensorflow_datasets"),
  Field('manual_dir', '', help=
    "folder with the archive as downloaded by hand; '': download it"),
)
# Fields that say how recordings become frames; each data set has its defaults.
_FRAMES = (
  Field('binning', 'window', choices=BINNINGS, help=
    'frames are windows from the first event on, equal parts of the whole '
    'recording (span), or hold equally many events (count)'),
  Field('window_ms', 0.0, low=0, help=
    'milliseconds per window; 0 for the other binnings'),
  Field('downsample', 1.0, low=1, help=
    'sensor pixels per frame pixel, along each side'),
  Field('mirrored', False, help=
    'mirror the sensor left and right before it is downsampled: for weights '
    "trained on the published code's frames of CIFAR10-DVS"),
  Field('crop', (0, 0), low=0, help=
    'height and width of the middle of the sensor, in pixels, which is all '
    'that is kept, before it is downsampled; (0, 0): the whole sensor'),
)
_SPLIT = Field('split', '', help=
  "division into training and test samples: 'tail', 'head', 'random' or "
  "'random-SEED'; '' if the data set comes divided")
# Fields of data sets that are folders of the user's.
_FOLDER = (
  Field('dir', '', help=
    'folder with train/CLASS/* and perhaps test/CLASS/*, or a .npz file with '
    'x_train, y_train and perhaps x_test, y_test'),
  dataclasses.replace(_SPLIT, help=
    "division where there are no test samples: 'tail', 'head', 'random' or "
    "'random-SEED', a fifth of each class"),
)
_IMAGE_FOLDER = (
  Field('size', (0, 0), low=0, help=
    '(height, width) that images are resized to; (0, 0): all have one size'),
)
_RECORDING_FOLDER = (
  Field('sensor', '', help=
    "the camera, such as 'davis346', or the HEIGHTxWIDTH of its sensor; '' if "
    'the files say it'),
)
_ARRAYS = (
  Field('digest', '', help=
    "hash of the user's own samples, which train sets"),
)

_EVERY_NETWORK = (
  Field('time_steps', 4, low=1, help='timesteps T'),
  Field('normalization', 'tdbn', choices=NORMALIZATIONS, help=
    'normalisation layer'),
  Field('normalize_input', False, help=
    'normalise the input too, without gamma and beta'),
  Field('dtype', 'float32', choices=('float32', 'bfloat16', 'float64'), help=
    'dtype of convolutions; membrane potentials, statistics and parameters are '
    'float32 or wider'),
)
_BLOCKS = (
  Field('residual', 'ds', choices=models.BLOCKS, help='residual block'),
  Field('shortcut', '', choices=('', 'mlf', 'norm'), help=
    "end of a projection shortcut; '': norm for plain and ms, else mlf"),
  Field('scan_blocks', False, help=
    'run the blocks of a stage that are alike in one loop: hundreds of layers '
    'compile in a minute or two, and a step is somewhat slower'),
)
_RESNET = (
  Field('depth', 20, low=8, help='layers: 6n + 2 for n blocks per stage'),
  Field('widths', (64, 128, 256), low=1, help='channels of the three stages'),
  *_BLOCKS,
)
_STEM = Field('stem', '3x3', choices=models.STEMS, help=
  'first convolution: 3x3, or 7x7 with stride 2 and a maximum with stride 2')
_VGG = (
  Field('dropout_rate', 0.25, low=0, below=1, help=
    'dropout rate after each dense spiking layer'),
)

_OPTIMIZER = (
  Field('name', 'sgd', choices=('sgd', 'adamw'), help='optimiser'),
  Field('learning_rate', 0.1, above=0, help='largest learning rate'),
  Field('momentum', 0.9, low=0, below=1, help=
    'momentum; for adamw the decay of the first moment'),
  Field('nesterov', False, help='Nesterov momentum'),
  Field('weight_decay', 1e-4, low=0, help=
    'sgd: L2, added to the gradient of every parameter; adamw: decoupled'),
  Field('clip_norm', 0.0, low=0, help=
    'above 0, gradients are scaled down to this global norm'),
  Field('accumulate_steps', 1, low=1, help=
    'batches whose gradients are averaged for one update'),
)
_SCHEDULE = (
  Field('name', 'step', choices=('step', 'cosine', 'constant'), help=
    'learning rate over time'),
  Field('step_epochs', 40, low=1, help='step: epochs per drop'),
  Field('step_factor', 0.1, above=0, high=1, help='step: factor of each drop'),
  Field('warmup_epochs', 0.0, low=0, help='epochs of linear rise from 0'),
)
# fmt: on


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


def _build_as(constructor):
  """Builds a network whose stages are those of `constructor`."""

  def build(*, shortcut, **attributes):
    return constructor(shortcut=shortcut or None, **attributes)

  return build


NETWORKS: Registry[NetworkEntry] = Registry(
  'network', instance_of(NetworkEntry)
)
NETWORKS['spiking_resnet'] = NetworkEntry(_build_resnet, _RESNET)
NETWORKS['resnet18'] = NetworkEntry(
  _build_as(models.resnet18), (*_BLOCKS, _STEM)
)
NETWORKS['resnet19'] = NetworkEntry(_build_as(models.resnet19), _BLOCKS)
NETWORKS['spiking_vgg16'] = NetworkEntry(models.SpikingVGG, _VGG)
NETWORKS.seal()

# The fields that decide which others there are.
_CHOSEN = {
  'model': Field('name', 'spiking_resnet', 'network', choices=NETWORKS),
  'data': Field('name', 'cifar10', 'data set', choices=data_lib.DATASETS),
  'unit': Field('name', 'mlf', 'spiking unit', choices=UNITS),
}


def declared_fields(model: str, data: str, unit: str) -> dict[str, Field]:
  """Fields of a configuration, with dotted names, such as 'optimizer.name'.

  Args:
    model: name of the network.
    data: name of the data set.
    unit: name of the spiking unit.

  Raises:
    UserError: one of the names is unknown.
  """
  names = {'model': model, 'data': data, 'unit': unit}
  for section, name in names.items():
    _CHOSEN[section].check(name, f'config.{section}')
  entry = data_lib.DATASETS[data]
  data_fields = {
    'name': _STORAGE,
    'folder': (
      *_FOLDER,
      *(_RECORDING_FOLDER if entry.is_frames else _IMAGE_FOLDER),
      *_ARRAYS,
    ),
    'arrays': _ARRAYS,
  }[entry.source]
  data_fields += _EVERY_DATASET
  network_fields = (*NETWORKS[model].fields, *_EVERY_NETWORK)
  frames, values = entry.frames, {'data.split': entry.default_split}
  if frames is not None:
    data_fields += _FRAMES
    if entry.source == 'name':
      data_fields += (_SPLIT,)
    values |= {
      'data.binning': frames.binning,
      'data.window_ms': frames.window_us / 1000,
      'data.downsample': float(frames.downsample),
      'data.mirrored': frames.mirrored,
      'data.crop': frames.crop,
      'model.time_steps': frames.time_steps,
    }
  augmentations = data_lib.augmentation_fields(entry.is_frames)
  for field in augmentations:
    if field.name in entry.refused or not entry.augmented:
      values[f'augment.{field.name}'] = type(field.default)()
  sections = {
    'data': data_fields,
    'augment': augmentations,
    'model': network_fields,
    'unit': fields_of(UNITS[unit]),
    'optimizer': _OPTIMIZER,
    'schedule': _SCHEDULE,
  }
  declared = {field.name: field for field in _RUN}
  for section, fields in sections.items():
    if section in names:
      values[f'{section}.name'] = names[section]
      fields = (_CHOSEN[section], *fields)
    for field in fields:
      name = f'{section}.{field.name}'
      declared[name] = dataclasses.replace(
        field, name=name, default=values.get(name, field.default)
      )
  return declared


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
  tree = {'augment': {}}  # There even if nothing can be augmented.
  for name, field in declared_fields(model, data, unit).items():
    section, _, leaf = name.rpartition('.')
    (tree.setdefault(section, {}) if section else tree)[leaf] = field.default
  return ml_collections.ConfigDict(tree).lock()


def with_fields(
  config: ml_collections.ConfigDict, fields: Mapping[str, object]
) -> ml_collections.ConfigDict:
  """Copy of a configuration with other values of some fields.

  Another unit or network brings fields of its own, at their defaults; those
  that both have keep their values.

      with_fields(config, {'unit.name': 'plif', 'num_epochs': 10})

  Args:
    config: the configuration.
    fields: values by the dotted name of their field.

  Raises:
    UserError: there is no such field, or the value has another type.
  """
  names = {
    section: fields.get(f'{section}.name', config[section].name)
    for section in _CHOSEN
  }
  if names['data'] != config.data.name:
    raise UserError(
      f'data.name is {config.data.name!r} and cannot become another; start '
      'from the configuration of that data set'
    )
  new = default(**names)
  known = flatten(new)
  for name, value in {**flatten(config), **fields}.items():
    if name in known:
      *sections, leaf = name.split('.')
      section = new
      for part in sections:
        section = section[part]
      try:
        section[leaf] = value
      except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'config.{name}: {reason}') from None
    elif name in fields:
      raise unknown('field of config', name, known)
  return new


def validate(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Checks every field, as far as that needs neither network nor data.

  Args:
    config: the configuration.
    num_devices: devices that a batch is divided among.

  Raises:
    UserError: names the first field that is wrong and what it may be.
  """
  values, declared = flatten(config), _declared_fields_of(config)
  if different := values.keys() ^ declared.keys():
    field = min(different)
    section = field.partition('.')[0]
    section = section if section in _CHOSEN else 'data'
    name = config[section]['name']
    verb = 'is no field of' if field in values else 'is missing for'
    raise UserError(
      f'config.{field} {verb} {name}; config.{section}.name is chosen where '
      f'the configuration is made, by default_config({section}={name!r})'
    )
  for name, field in declared.items():
    field.check(values[name])
  if config.random_time_steps and LOSSES[config.loss].every_timestep:
    raise UserError(
      'config.random_time_steps needs a loss of the mean logits over time, '
      f'such as cross_entropy; config.loss {config.loss!r} trains every '
      'timestep already'
    )
  for name in ('batch_size', 'eval_batch_size'):
    if config[name] % num_devices:
      near = max(1, round(config[name] / num_devices)) * num_devices
      raise UserError(
        f'config.{name} {config[name]} cannot be divided among {num_devices} '
        f'devices; {near} can'
      )


def _declared_fields_of(config):
  return declared_fields(**{name: config[name]['name'] for name in _CHOSEN})


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
  values, lines = flatten(config), []
  for name, field in _declared_fields_of(config).items():
    text = field.help + (f' ({field.range})' if field.range else '')
    explained = textwrap.indent(textwrap.fill(text, 74), ' ' * 6)
    lines.append(f'  --config.{name}={values[name]}\n{explained}')
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
    config = default(**{name: stored[name]['name'] for name in _CHOSEN})
    config.update(stored)
  except UserError:
    raise
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f'the stored configuration is of another version: {reason}'
    ) from None
  return config


def differing_fields(ours: Mapping, theirs: Mapping) -> list[str]:
  """Lists the fields whose values differ, with both values."""
  ours, theirs = flatten(ours), flatten(theirs)
  pairs = {
    field: (ours.get(field, 'absent'), theirs.get(field, 'absent'))
    for field in sorted(ours.keys() | theirs.keys())
  }
  return [
    f'config.{field}: {here!r} here, {there!r} there'
    for field, (here, there) in pairs.items()
    if here != there
  ]


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Eight hexadecimal digits that tell configurations apart."""
  text = json.dumps(as_json(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
