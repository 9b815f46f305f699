"""Cost of inference: synaptic operations, parameters and an energy estimate.

A layer whose input is real numbers, such as the first, costs a
multiply-accumulate (MAC) for each synapse of each input. A layer whose input is
spikes costs one accumulate for each outgoing synapse of each spike, and a unit
of which n levels fire sends n spikes (unary). Synapses that would end in the
padding do not exist, so a spike at the border reaches fewer of them.
"""

import dataclasses
import functools
import os
import pathlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import rich.box
import rich.console
import rich.table
from jaxtyping import Array, Float, Int, Num

from mlf_jax import activity, data
from mlf_jax.activity.capture import in_order
from mlf_jax.errors import UserError
from mlf_jax.layers import Readout, SpikingUnits
from mlf_jax.training import Restored, configured_data, restore
from mlf_jax.training import config as config_lib
from mlf_jax.training import workdir as workdir_lib
from mlf_jax.training.evaluation import with_first_frames

# Energy in 45 nm CMOS at 32-bit floats. Source: Horowitz, ISSCC 2014.
PICOJOULES = {'mac': 4.6, 'accumulate': 0.9}
CAVEAT = (
  'The energy is that of synaptic arithmetic alone (45 nm CMOS: '
  f'{PICOJOULES["mac"]} pJ per multiply-accumulate, '
  f'{PICOJOULES["accumulate"]} pJ per accumulate). Left out are memory '
  'traffic, which often costs more than the arithmetic, the updates of '
  'membrane potentials, biases, and the normalisation, which can be folded '
  'into the weights.'
)

# Columns of a terminal that the table of a large network takes.
_WIDTH = 120


@dataclasses.dataclass(frozen=True)
class Spread:
  """A quantity per sample: mean, standard deviation, and range over samples."""

  mean: float
  deviation: float
  minimum: float
  maximum: float

  @classmethod
  def over(cls, values: Num[np.ndarray, 'sample']) -> 'Spread':
    """Spread of the values of all samples."""
    functions = (np.mean, np.std, np.min, np.max)
    return cls(*(float(function(values)) for function in functions))


@dataclasses.dataclass(frozen=True)
class LayerCost:
  """Synaptic operations of a convolution or dense layer.

  Attributes:
    name: path of the layer.
    kind: 'macs' or 'accumulates'.
    operations: operations per sample, over all timesteps.
    relu_macs: multiply-accumulates per sample in the network with ReLU.
  """

  name: str
  kind: str
  operations: Spread
  relu_macs: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """Cost of classifying a sample.

  Attributes:
    layers: convolutions and dense layers in the order of computation.
    macs: multiply-accumulates per sample.
    accumulates: accumulates per sample.
    relu_macs: multiply-accumulates of the same network with ReLU, which sees
      an image once, and all frames of a recording.
    energy_joules: estimated energy per sample; see `CAVEAT`.
    relu_energy_joules: that of the network with ReLU.
    parameters: number of trainable numbers.
    parameter_bytes: their size as they are stored.
    samples: samples that were measured.
    time_steps: timesteps T.
  """

  layers: tuple[LayerCost, ...]
  macs: Spread
  accumulates: Spread
  relu_macs: int
  energy_joules: Spread
  relu_energy_joules: float
  parameters: int
  parameter_bytes: int
  samples: int
  time_steps: int

  def to_json(self) -> dict:
    """The cost as nested dictionaries of plain numbers."""
    return dataclasses.asdict(self) | {
      'picojoules': PICOJOULES,
      'left_out': CAVEAT,
    }

  def table(self) -> rich.table.Table:
    """The cost as a table for the terminal."""
    table = rich.table.Table(
      title=f'operations per sample, T = {self.time_steps}, over '
      f'{self.samples:,} samples',
      box=rich.box.SIMPLE,
    )
    table.add_column('layer', no_wrap=True)
    table.add_column('operation')
    for head in ('mean', 'std', 'min', 'max', 'ReLU MACs'):
      table.add_column(head, justify='right', no_wrap=True)

    def add(name, kind, spread, relu_macs, **style):
      numbers = dataclasses.astuple(spread)
      cells = (f'{round(n):,}' for n in numbers)
      table.add_row(name, kind, *cells, relu_macs, **style)

    for layer in self.layers:
      kind = {'macs': 'MAC', 'accumulates': 'accumulate'}[layer.kind]
      add(layer.name, kind, layer.operations, f'{layer.relu_macs:,}')
    table.add_section()
    add('all', 'MAC', self.macs, f'{self.relu_macs:,}', style='bold')
    add('all', 'accumulate', self.accumulates, '0', style='bold')
    nanojoules = (f'{1e9 * e:,.1f}' for e in self._energies())
    table.add_row('energy', 'nJ', *nanojoules, style='bold')
    return table

  def _energies(self):
    return (
      *dataclasses.astuple(self.energy_joules),
      self.relu_energy_joules,
    )


def cost_of(
  restored: Restored,
  dataset: data.Dataset,
  time_steps: int | None = None,
) -> Cost:
  """Counts the operations of a network on each of its test samples.

  Args:
    restored: a checkpoint of `training.restore`.
    dataset: its data set, of `training.configured_data.load_dataset`.
    time_steps: timesteps to run, of frames the first; those of training by
      default.

  Raises:
    UserError: more timesteps than frames, or a layer that cannot be counted.
  """
  config = restored.config
  time_steps = time_steps or config.model.time_steps
  dataset = with_first_frames(dataset, time_steps)
  normalize = configured_data.normalizer(config, dataset)
  model = restored.model.clone(time_steps=time_steps)
  with jax.enable_x64(config_lib.is_float64(config)):
    variables, parts = restored.state.eval_variables, []
    for batch in data.eval_batches(dataset.test, config.batch_size):
      inputs = normalize(batch['image'])
      counted = np.flatnonzero(batch['mask'])
      parts.append(
        {
          path: (synapses.of_samples(counted))
          for path, synapses in count_spikes(model, variables, inputs).items()
        }
      )
  operations = {
    path: Synapses.concatenate([part[path] for part in parts])
    for path in parts[0]
  }
  static = dataset.test.images.ndim == 4
  return _summary(operations, variables['params'], time_steps, static)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=(
    'quarter_spikes',
    'fan_out',
    'channels',
    'times',
    'is_whole',
    'is_quarters',
  ),
  meta_fields=(),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Synapses:
  """Spikes that reach a layer, and the synapses that they meet there.

  Attributes:
    quarter_spikes: four times the spikes at each position, over all channels
      and timesteps: the mean that a 2x2 pool takes of four spikes is whole
      numbers then.
    fan_out: synapses of a channel at each position.
    channels: input channels.
    times: times that the layer is applied to a sample.
    is_whole: whether the input is whole numbers; False for the network's own
      input.
    is_quarters: whether it is quarters.
  """

  quarter_spikes: Int[Array, 'batch *space']
  fan_out: Int[Array, '*space']
  channels: Int[Array, '']
  times: Int[Array, '']
  is_whole: Array
  is_quarters: Array

  @classmethod
  def of(cls, x, batch: int, fan_out, times: int, is_input: bool) -> 'Synapses':
    """Counts an input [times * batch, *space, channel]."""
    per_sample = jnp.abs(x).reshape((-1, batch, *x.shape[1:]))
    quarters = jnp.round(4 * per_sample).astype(jnp.int32).sum((0, -1))
    whole, quarter = (
      (x * n == jnp.round(x * n)).all() & (not is_input) for n in (1, 4)
    )
    return cls(
      # Positions that the fan-out does not distinguish are added up.
      quarter_spikes=quarters.sum(
        tuple(range(1 + fan_out.ndim, quarters.ndim))
      ),
      fan_out=fan_out,
      channels=jnp.int32(x.shape[-1]),
      times=jnp.int32(times),
      is_whole=whole,
      is_quarters=quarter,
    )

  def of_samples(self, samples: Int[np.ndarray, 'sample']) -> 'Synapses':
    """Only some of the samples."""
    return dataclasses.replace(
      self, quarter_spikes=self.quarter_spikes[samples]
    )

  @classmethod
  def concatenate(cls, parts: list['Synapses']) -> 'Synapses':
    """Samples of several batches."""
    return dataclasses.replace(
      parts[0],
      quarter_spikes=np.concatenate([part.quarter_spikes for part in parts]),
      is_whole=all(part.is_whole for part in parts),
      is_quarters=all(part.is_quarters for part in parts),
    )

  @property
  def takes_spikes(self) -> bool:
    """True for an input of spikes, or of means of four spikes."""
    return bool(self.is_whole or self.is_quarters)

  @property
  def macs_once(self) -> int:
    """Multiply-accumulates when the layer is applied to a sample once."""
    return int(self.channels) * int(np.sum(self.fan_out, dtype=np.int64))

  @property
  def macs(self) -> Int[np.ndarray, 'sample']:
    """Multiply-accumulates of each sample."""
    each = 0 if self.takes_spikes else int(self.times) * self.macs_once
    return np.full(len(self.quarter_spikes), each, np.int64)

  @property
  def accumulates(self) -> Int[np.ndarray, 'sample']:
    """Accumulates of each sample."""
    if not self.takes_spikes:
      return np.zeros(len(self.quarter_spikes), np.int64)
    spikes = np.asarray(self.quarter_spikes, np.int64)
    if self.is_whole:
      spikes = spikes // 4
    return (spikes * np.asarray(self.fan_out)).reshape((len(spikes), -1)).sum(1)


def count_spikes(
  model: nn.Module,
  variables: dict,
  inputs: Float[Array, 'batch ...'],
) -> dict[str, Synapses]:
  """Counts the spikes that reach each convolution and dense layer.

  Args:
    model: the network.
    variables: `params` and `batch_stats`.
    inputs: input of the network.

  Returns:
    Layers to what reaches them, in the order of computation, on the host.

  Raises:
    UserError: there are weights that belong to neither kind of layer.
  """
  counted = jax.device_get(_count_spikes(model, variables, inputs))
  weights = {
    '/'.join(path[:-1])
    for path in flax.traverse_util.flatten_dict(variables['params'])
    if path[-1] == 'kernel'
  }
  if missing := sorted(weights - counted.keys()):
    raise UserError(
      f'the operations of {missing[0]} cannot be counted: it is neither a '
      'flax.linen.Conv nor a flax.linen.Dense'
    )
  return in_order(counted, activity.depth_order(model, inputs))


@functools.partial(jax.jit, static_argnums=0)
def _count_spikes(model, variables, inputs):
  batch, is_input, read_out = len(inputs), True, None

  def hook(module, x=None, *_, **__):
    nonlocal is_input, read_out
    if isinstance(module, SpikingUnits):
      is_input = False
    if isinstance(module, Readout):
      read_out = x
    if not isinstance(module, (nn.Conv, nn.Dense)):
      return None
    times = x.shape[0] // batch
    if read_out is not None:
      # The dense layer is linear, so it is the spikes that reach it, although
      # their mean is what is multiplied.
      x, read_out = read_out, None
    return Synapses.of(x, batch, _fan_out(module, x), times, is_input)

  return activity.capture(model, variables, inputs, hook)[1]


def _fan_out(module, x):
  """Number of synapses that leave one channel at each position of the input."""
  if isinstance(module, nn.Dense):
    return jnp.int32(module.features)
  # The transpose of a convolution brings a one from every output back along
  # each of its synapses; one input and one output channel tell all.
  single = module.clone(
    parent=None,
    features=1,
    feature_group_count=1,
    use_bias=False,
    dtype=jnp.float32,
    conv_general_dilated=None,
  )
  size = module.kernel_size
  size = (size,) if isinstance(size, int) else tuple(size)
  kernel = {'params': {'kernel': jnp.ones((*size, 1, 1))}}
  y, transpose = jax.vjp(
    lambda one: single.apply(kernel, one),
    jnp.zeros((1, *x.shape[1:-1], 1)),
  )
  (taps,) = transpose(jnp.ones_like(y))
  features = module.features // module.feature_group_count
  return taps[0, ..., 0].astype(jnp.int32) * features


def _summary(operations, params, time_steps, static):
  """The cost of the operations of all samples, by layer."""
  layers = []
  for path, synapses in operations.items():
    kind = 'accumulates' if synapses.takes_spikes else 'macs'
    times = 1 if static else int(synapses.times)
    layers.append(
      LayerCost(
        path,
        kind,
        Spread.over(getattr(synapses, kind)),
        times * synapses.macs_once,
      )
    )
  macs = sum(synapses.macs for synapses in operations.values())
  accumulates = sum(synapses.accumulates for synapses in operations.values())
  energy = 1e-12 * (
    PICOJOULES['mac'] * macs + PICOJOULES['accumulate'] * accumulates
  )
  relu_macs = sum(layer.relu_macs for layer in layers)
  leaves = jax.tree.leaves(params)
  return Cost(
    layers=tuple(layers),
    macs=Spread.over(macs),
    accumulates=Spread.over(accumulates),
    relu_macs=relu_macs,
    energy_joules=Spread.over(energy),
    relu_energy_joules=1e-12 * PICOJOULES['mac'] * relu_macs,
    parameters=sum(leaf.size for leaf in leaves),
    parameter_bytes=sum(leaf.nbytes for leaf in leaves),
    samples=len(macs),
    time_steps=time_steps,
  )


def evaluate_cost(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  time_steps: int | None = None,
  dataset: data.Dataset | None = None,
) -> Cost:
  """Prints the cost of a checkpoint and writes it to `cost.json`.

  Args:
    workdir: directory of the run.
    checkpoint: 'best' or 'last'.
    time_steps: timesteps to run; those of training by default.
    dataset: arrays of your own, if the run was trained on such.

  Raises:
    UserError: no such run or checkpoint, more timesteps than frames, or a layer
      that cannot be counted.
  """
  workdir = pathlib.Path(workdir).expanduser()
  restored = restore(workdir, checkpoint, dataset)
  dataset = configured_data.load_dataset(restored.config, dataset)
  cost = cost_of(restored, dataset, time_steps)
  console = rich.console.Console()
  if not console.is_terminal:  # A file is as wide as the table.
    console = rich.console.Console(width=_WIDTH)
  console.print(cost.table())
  console.print(
    f'{cost.parameters:,} parameters, {cost.parameter_bytes:,} bytes. {CAVEAT}',
    highlight=False,
  )
  path = workdir / 'cost.json'
  stored = {'step': restored.step, 'checkpoint': checkpoint}
  workdir_lib.write_json(path, stored | cost.to_json())
  print(f'cost in {path}')
  return cost
