"""Cost of inference: synaptic operations, parameters and an energy estimate.

A layer whose input is real numbers, such as the first, costs a
multiply-accumulate (MAC) for each synapse of each input. A layer whose input is
spikes costs one accumulate for each outgoing synapse of each spike, and a unit
of which n levels fire sends n spikes (unary). Synapses that would end in the
padding do not exist, so a spike at the border reaches fewer of them.
"""

import dataclasses
import os
import pathlib

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from jaxtyping import Num

from mlf_jax import data
from mlf_jax.analysis.synapses import Synapses, count_spikes
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
          path: synapses.of_samples(counted)
          for path, synapses in count_spikes(model, variables, inputs).items()
        }
      )
  operations = {
    path: Synapses.concatenate([part[path] for part in parts])
    for path in parts[0]
  }
  static = dataset.test.images.ndim == 4
  return _summary(operations, variables['params'], time_steps, static)


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
