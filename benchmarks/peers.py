"""Times mlf_jax, SpikingJelly and snnTorch: `python benchmarks/peers.py`.

Prints the time of a training step (forward, backward, SGD with momentum) and of
inference, for the paper's three networks with K = 1 and K = 3 levels: median,
least and most of the repetitions after a warm-up, the ratio of the median to
that of mlf_jax, and the memory. Each line is measured in a process of its own,
one after the other, with the same weights, the same data, float32 and all
cores. Both libraries need PyTorch; one that is not installed is left out, with
a message.

On the CPU, memory is the most that the process held, with compilation. On a GPU
(`--device=gpu`) the batches fill the card, the products of both sides are taken
in TF32, and memory is what a training step takes on the device: what XLA
allocates for it, and the most that PyTorch did after the warm-up.

`--libraries spikingjelly:compiled` hands the network to `torch.compile`;
`mlf_jax:balanced` is that memory mode. SpikingJelly has kernels for GPUs with
the surrogate `arctan`, but not with the paper's `rectangular`.

`--check` times nothing: it prints how far outputs and gradients of a unit of
each library are from those of `mlf_jax.neuron.run`, and how far logits of the
networks, and the loss before and after a training step.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import operator
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

# Neither JAX nor PyTorch is imported here, so that a process that measures one
# of them does not hold the other.

# Constructor in `mlf_jax.models`; shape of an image, or of a sample's frames.
NETWORKS = {
  'cifar10': ('ds_resnet20_cifar10', (32, 32, 3)),
  'cifar10_dvs': ('ds_resnet14_cifar10_dvs', (10, 42, 42, 2)),
  'dvs_gesture': ('ds_resnet20_dvs_gesture', (40, 32, 32, 2)),
}
# Samples in a batch, network by network.
BATCHES = {'cpu': (8, 4, 4), 'gpu': (128, 64, 32)}
THRESHOLDS = {1: (0.6,), 3: (0.6, 1.6, 2.6)}
SURROGATES = 'rectangular', 'arctan'
# Libraries by their name for `pip install`, and the modules that each needs.
PEERS = {
  'spikingjelly': ('torch', 'spikingjelly'),
  'snntorch': ('torch', 'snntorch'),
}
# What a line of a table can measure beside mlf_jax.
LINES = [
  'mlf_jax:balanced',
  'mlf_jax:smallest',
  *PEERS,
  *(f'{library}:compiled' for library in PEERS),
]
DECAY = 0.25
LEARNING_RATE = 0.01
MOMENTUM = 0.9
# PyTorch adds it to the variance, mlf_jax to the root of the variance.
EPSILON = 1e-5
WARM_UP = 3
CORES = os.cpu_count()
# What JAX calls a device.
PLATFORMS = {'cpu': 'cpu', 'gpu': 'cuda'}

# Differences between the equations that cannot be removed.
FOOTNOTE = """\
Not the same: SpikingJelly fires at u >= V, mlf_jax and snnTorch at u > V;
snnTorch passes no gradient through the reset; batch norm of PyTorch adds its
epsilon to the variance, that of mlf_jax to the root of the variance."""


def make_task(network, num_levels, surrogate='rectangular', batch=2):
  """Returns attributes of a network, its weights and a batch, in NumPy."""
  import jax

  from mlf_jax import layers, models
  from mlf_jax.interop.torch import to_reference

  constructor, shape = NETWORKS[network]
  shape = batch, *shape
  thresholds = THRESHOLDS[num_levels]
  model = getattr(models, constructor)(unit=layers.MLF(thresholds))
  rng = np.random.default_rng(0)
  # Images, or frames that count events.
  x = rng.standard_normal(shape) if len(shape) == 4 else rng.poisson(0.3, shape)
  x = x.astype(np.float32)
  weights = to_reference(jax.jit(model.init)(jax.random.key(0), x[:1]))
  names = (
    *('stage_sizes', 'widths', 'num_classes', 'time_steps'),
    'normalize_input',
  )
  return {
    'size': {name: getattr(model, name) for name in names},
    'thresholds': thresholds,
    'surrogate': surrogate,
    'x': x,
    'labels': rng.integers(0, model.num_classes, shape[0]),
    'weights': weights,
  }


def save_task(path, task):
  """Writes a task to a file for `load_task`."""
  weights = {f'weights/{k}': v for k, v in task['weights'].items()}
  np.savez(
    path,
    size=json.dumps(task['size']),
    thresholds=task['thresholds'],
    x=task['x'],
    labels=task['labels'],
    surrogate=task['surrogate'],
    **weights,
  )


def load_task(path):
  """Reads a task that `save_task` wrote."""
  with np.load(path) as file:
    return {
      'size': {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(str(file['size'])).items()
      },
      'thresholds': tuple(file['thresholds'].tolist()),
      'surrogate': str(file['surrogate']),
      'x': file['x'],
      'labels': file['labels'],
      'weights': {
        name.removeprefix('weights/'): file[name]
        for name in file.files
        if name.startswith('weights/')
      },
    }


def jax_functions(task, memory_mode='fastest', normalization='tdbn'):
  """Returns functions for inference, a training step, and their memory.

  Args:
    task: what `make_task` returned.
    memory_mode: what the network keeps for its backward pass.
    normalization: name of the normalisation of the network.

  Returns:
    Functions that give logits; the loss of the next training step; and, for
    'inference' or 'training', the bytes that XLA allocates for it.
  """
  import jax
  import jax.numpy as jnp
  import optax

  from mlf_jax.interop.torch import from_reference
  from mlf_jax.layers import MLF
  from mlf_jax.models import SpikingResNet
  from mlf_jax.training.sharding import compiler_options

  model = SpikingResNet(
    **task['size'],
    unit=MLF(task['thresholds'], DECAY, surrogate=task['surrogate']),
    memory=memory_mode,
    normalization=normalization,
    dtype=task['x'].dtype,
  )
  optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)
  options = compiler_options(jax.default_backend())
  # Copied, because only arrays that JAX owns can be donated.
  variables = jax.tree.map(jnp.array, from_reference(task['weights']))
  x = jnp.asarray(task['x'])
  labels = jnp.asarray(task['labels'], jnp.int32)

  def update(state, x, labels):
    variables, momentum = state

    def loss_fn(params):
      logits, new = model.apply(
        {**variables, 'params': params}, x, True, mutable=['batch_stats']
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), new

    (loss, new), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
      variables['params']
    )
    updates, momentum = optimizer.update(gradient, momentum)
    params = optax.apply_updates(variables['params'], updates)
    return ({'params': params, **new}, momentum), loss

  state = variables, optimizer.init(variables['params'])
  apply = jax.jit(model.apply).lower(variables, x).compile(options)
  update = jax.jit(update, donate_argnums=0).lower(state, x, labels)
  update = update.compile(options)

  def infer():
    return np.asarray(apply(state[0], x))

  def train():
    nonlocal state
    state, loss = jax.block_until_ready(update(state, x, labels))
    return float(loss)

  def memory(what):
    program = {'inference': apply, 'training': update}[what]
    parts = program.memory_analysis()
    return (
      parts.argument_size_in_bytes
      + parts.output_size_in_bytes
      - parts.alias_size_in_bytes
      + parts.temp_size_in_bytes
    )

  return infer, train, memory


def total(arrays):
  """Sums arrays without the zero that `sum` starts from."""
  return functools.reduce(operator.add, arrays)


def spikingjelly_parts(surrogate_name, epsilon):
  """Returns convolution, tdBN and MLF units, and a function that resets them.

  SpikingJelly has no kernels for the rectangular surrogate gradient, so its
  loop over time consists of PyTorch operations.
  """
  import torch
  from spikingjelly.activation_based import functional, layer, neuron, surrogate

  surrogates = {'rectangular': surrogate.Rect(1.0), 'arctan': surrogate.ATan()}

  class Units(torch.nn.Module):
    """Neurons that share their input, one per level."""

    def __init__(self, thresholds):
      super().__init__()
      self.levels = torch.nn.ModuleList(
        neuron.LIFNode(
          # v - v / tau + x equals decay * v + x.
          tau=1 / (1 - DECAY),
          decay_input=False,
          v_threshold=v,
          v_reset=0.0,
          surrogate_function=surrogates[surrogate_name],
          detach_reset=False,
          step_mode='m',
        )
        for v in thresholds
      )

    def forward(self, x):
      return total([level(x) for level in self.levels])

  def conv(*arguments, **options):
    return layer.Conv2d(*arguments, **options, step_mode='m')

  def norm(channels, threshold):
    return layer.ThresholdDependentBatchNorm2d(
      1.0, threshold, channels, epsilon
    )

  return conv, norm, Units, functional.reset_net


def snntorch_parts(surrogate_name, epsilon):
  """Returns the same of snnTorch; its layers need time folded into batch."""
  import snntorch
  import torch
  from snntorch import surrogate

  def over_time(layer, x):
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])

  class Conv(torch.nn.Conv2d):
    """Convolution at every timestep."""

    def forward(self, x):
      return over_time(super().forward, x)

  class Norm(torch.nn.BatchNorm2d):
    """Batch norm over time and batch."""

    def __init__(self, channels, threshold):
      super().__init__(channels, epsilon)
      torch.nn.init.constant_(self.weight, threshold)

    def forward(self, x):
      return over_time(super().forward, x)

  def rectangle(u, gradient, spikes):
    return gradient * (u.abs() < 0.5)

  surrogates = {
    'rectangular': surrogate.custom_surrogate(rectangle),
    'arctan': surrogate.atan(),
  }

  class Units(torch.nn.Module):
    """Neurons that share their input, one per level."""

    def __init__(self, thresholds):
      super().__init__()
      self.levels = torch.nn.ModuleList(
        snntorch.Leaky(
          beta=DECAY,
          threshold=v,
          # Resets after the spike of the timestep before, as mlf_jax does.
          reset_mechanism='zero',
          spike_grad=surrogates[surrogate_name],
        )
        for v in thresholds
      )

    def forward(self, x):
      potentials = [level.reset_mem() for level in self.levels]
      output = []
      for x_t in x:
        spikes = []
        for k, level in enumerate(self.levels):
          spikes_k, potentials[k] = level(x_t, potentials[k])
          spikes.append(spikes_k)
        output.append(total(spikes))
      # Its spikes are float32 for a current of any dtype.
      return torch.stack(output).to(x.dtype)

  # Its neurons are reset when they are called.
  return Conv, Norm, Units, lambda network: None


PARTS = {'spikingjelly': spikingjelly_parts, 'snntorch': snntorch_parts}


def torch_network(parts, task):
  """Builds `SpikingResNet` in PyTorch; its parameters have published names."""
  from torch import nn

  conv, norm, units, _ = parts
  size, thresholds = task['size'], task['thresholds']
  widths = size['widths']

  def normalized_units(channels):
    return norm(channels, thresholds[0]), units(thresholds)

  class Block(nn.Module):
    """DS-ResNet block."""

    def __init__(self, before, channels, stride):
      super().__init__()
      self.conv1 = conv(before, channels, 3, stride, 1, bias=False)
      self.bn1, self.units1 = normalized_units(channels)
      self.conv2 = conv(channels, channels, 3, 1, 1, bias=False)
      self.bn2, self.units2 = normalized_units(channels)
      self.shortcut = nn.Identity()
      if stride != 1 or before != channels:
        self.shortcut = nn.Sequential(
          conv(before, channels, 1, stride, bias=False),
          *normalized_units(channels),
        )

    def forward(self, x):
      y = self.units1(self.bn1(self.conv1(x)))
      return self.units2(self.bn2(self.conv2(y))) + self.shortcut(x)

  class Network(nn.Module):
    """DS-ResNet."""

    def __init__(self):
      super().__init__()
      # Frames have two channels; mlf_jax learns no scale here either.
      self.bn0 = nn.Identity()
      if size['normalize_input']:
        self.bn0 = norm(2, thresholds[0]).requires_grad_(False)
      channels = task['x'].shape[-1]
      self.conv1 = conv(channels, widths[0], 3, 1, 1, bias=False)
      self.bn1, self.units1 = normalized_units(widths[0])
      channels = widths[0]
      for stage, width in enumerate(widths):
        blocks = []
        for i in range(size['stage_sizes'][stage]):
          stride = 2 if stage > 0 and i == 0 else 1
          blocks.append(Block(channels, width, stride))
          channels = width
        self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
      self.voting = nn.Linear(channels, size['num_classes'])

    def forward(self, x):
      """Logits of [time, batch, channel, height, width]; time may be 1."""
      x = self.bn1(self.conv1(self.bn0(x)))
      # As in mlf_jax, the current of an image is computed once. The unbiased
      # running variance counts it once here, and T times in mlf_jax.
      x = self.units1(x.expand(size['time_steps'], *x.shape[1:]))
      for stage in range(len(widths)):
        x = self.get_submodule(f'layer{stage + 1}')(x)
      return self.voting(x.mean((0, 3, 4)))

  return Network()


def torch_weights(task):
  """Renames weights for `torch_network`; its gamma includes the threshold."""
  import torch

  weights = {}
  for name, value in task['weights'].items():
    name = name.replace('.execute.', '.').replace('.bn.', '.')
    if name.endswith('.weight') and value.ndim == 1:
      value = value * task['thresholds'][0]
    weights[name] = torch.tensor(value)
  return weights


def torch_functions(
  library, task, compiled=False, epsilon=EPSILON, device='cpu'
):
  """Returns the same as `jax_functions`; memory is that of a GPU."""
  import torch

  # PyTorch's default leaves out the second thread of each physical core.
  torch.set_num_threads(CORES)
  # As XLA does on GPUs; for convolutions it is PyTorch's default, too.
  torch.backends.cuda.matmul.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  parts = PARTS[library](task['surrogate'], epsilon)
  frames = task['x'].ndim == 5
  network = torch_network(parts, task)
  missing, unexpected = network.load_state_dict(
    torch_weights(task), strict=False
  )
  learned = {n: p for n, p in network.named_parameters() if p.requires_grad}
  if unexpected or learned.keys() & set(missing):
    raise ValueError(f'weights do not fit: {missing}, {unexpected}')
  # In place: the parameters stay the objects that they are.
  network.to(device)
  x = torch.tensor(task['x']).movedim(-1, -3)
  x = (x.swapaxes(0, 1) if frames else x[None]).contiguous().to(device)
  labels = torch.tensor(task['labels'], device=device)
  # Gamma includes the threshold here and not in mlf_jax: a learning rate with
  # the same effect is larger by its square.
  scale = task['thresholds'][0] ** 2
  gammas = [
    n for n, p in learned.items() if n.endswith('weight') and p.ndim < 2
  ]
  optimizer = torch.optim.SGD(
    [
      {
        'params': [learned[name] for name in gammas],
        'lr': LEARNING_RATE * scale,
      },
      {'params': [p for n, p in learned.items() if n not in gammas]},
    ],
    LEARNING_RATE,
    MOMENTUM,
    fused=True,
  )
  reset = parts[3]
  call = torch.compile(network) if compiled else network

  def infer():
    network.eval()
    with torch.inference_mode():
      logits = call(x)
    reset(network)
    return logits.cpu().numpy()

  def train():
    network.train()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(call(x), labels)
    loss.backward()
    optimizer.step()
    reset(network)
    return loss.item()

  def memory(what):
    torch.cuda.reset_peak_memory_stats()
    {'inference': infer, 'training': train}[what]()
    return torch.cuda.max_memory_allocated()

  return infer, train, memory


def seconds_of(function, steps):
  """Times calls after a warm-up: median, least and most seconds."""
  for _ in range(WARM_UP):
    function()
  seconds = []
  for _ in range(steps):
    began = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - began)
  return statistics.median(seconds), min(seconds), max(seconds)


def most_resident():
  """Peak resident memory of this process in bytes; Linux only."""
  # `getrusage` would start from the peak of the parent process.
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'VmHWM:\s*(\d+)', status)[1])


def work(line, path, steps, device):
  """Measures one line of a table on one task and prints it as JSON."""
  task = load_task(path)
  library, _, variant = line.partition(':')
  if library == 'mlf_jax':
    infer, train, memory = jax_functions(task, variant or 'fastest')
  else:
    infer, train, memory = torch_functions(
      library, task, variant == 'compiled', device=PLATFORMS[device]
    )
  if device == 'cpu':
    memory = lambda what: most_resident()
  result = {}
  # In this order, because most of the memory is held from then on.
  for what, function in (('inference', infer), ('training', train)):
    seconds = seconds_of(function, steps)
    result[what] = {'seconds': seconds, 'memory': memory(what)}
  print(json.dumps(result))


def measure(line, path, steps, device):
  """Calls `work` in a new process; returns what it prints, None if it fails."""
  command = [sys.executable, __file__, '--worker', line, str(path)]
  command += [f'--steps={steps}', f'--device={device}']
  worker = subprocess.run(
    command, stdout=subprocess.PIPE, env=environment(device)
  )
  if worker.returncode:
    return None
  # The libraries may have printed lines before.
  return json.loads(worker.stdout.splitlines()[-1])


def environment(device):
  """Environment of a process that uses a device."""
  jax_platform, threads = PLATFORMS[device], str(CORES)
  return os.environ | {
    'JAX_PLATFORMS': jax_platform,
    'OMP_NUM_THREADS': threads,
  }


def machine(device, modules):
  """The line about the machine of the other benchmarks, with more versions."""
  program = 'import cases; print(cases.machine())'
  line = subprocess.check_output(
    [sys.executable, '-c', program],
    cwd=pathlib.Path(__file__).parent,
    env=environment(device),
    text=True,
  )
  versions = [f'{name} {importlib.metadata.version(name)}' for name in modules]
  return ', '.join([line.strip(), *versions])


def compare(lines, arguments):
  """Measures everything and prints a table for each network and K."""
  batches = dict(zip(NETWORKS, BATCHES[arguments.device], strict=True))
  for network, num_levels in itertools.product(
    arguments.networks, arguments.levels
  ):
    batch = arguments.batch or batches[network]
    print(
      f'\n{f"{network}, K = {num_levels}, batch {batch}":30}'
      f'{"training step, ms":>20}{"ratio":>7}{"MiB":>7}'
      f'{"inference, ms":>20}{"ratio":>7}{"MiB":>7}'
    )
    results = {}
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, 'task.npz')
      task = make_task(network, num_levels, arguments.surrogate, batch)
      save_task(path, task)
      for line in lines:
        result = measure(line, path, arguments.steps, arguments.device)
        if result is None:
          print(f'{line:30}failed', flush=True)
          continue
        results[line] = result
        cells = f'{line:30}'
        for what in ('training', 'inference'):
          middle, least, most = (1e3 * s for s in result[what]['seconds'])
          # mlf_jax is the first; it may have failed.
          ours = results.get('mlf_jax', result)[what]['seconds'][0]
          cells += (
            f'{f"{middle:.3g} ({least:.3g}-{most:.3g})":>20}'
            f'{result[what]["seconds"][0] / ours:7.2f}'
            f'{result[what]["memory"] / 2**20:7.0f}'
          )
        print(cells, flush=True)
  print(f'\n{FOOTNOTE}')


def check_units(libraries, levels, surrogate):
  """Compares spikes and gradients of a unit with `mlf_jax.neuron.run`."""
  import jax
  import torch

  from mlf_jax import neuron

  rng = np.random.default_rng(0)
  # [time, batch, channel, height, width], around the thresholds.
  x = (1.5 * rng.standard_normal((40, 8, 16, 9, 9))).astype(np.float32)
  weight = rng.standard_normal(x.shape).astype(np.float32)
  for num_levels in levels:
    params = neuron.MLFParams(
      THRESHOLDS[num_levels], DECAY, surrogate=surrogate
    )
    spikes, back = jax.vjp(lambda x, p=params: neuron.run(p, x)[1], x)
    spikes, gradient = np.asarray(spikes), np.asarray(back(weight)[0])
    for library in libraries:
      units = PARTS[library](surrogate, EPSILON)[2](THRESHOLDS[num_levels])
      current = torch.tensor(x, requires_grad=True)
      output = units(current)
      output.backward(torch.tensor(weight))
      output, ours = output.detach().numpy(), current.grad.numpy()
      print(
        f'unit, K = {num_levels}, {library}: {(output != spikes).sum()} of '
        f'{x.size:,} outputs differ, gradients by {furthest(ours, gradient)}',
        flush=True,
      )


def check_networks(libraries, networks, levels, surrogate):
  """Compares logits, and the loss before and after a training step.

  In float64 and with a tiny epsilon. Otherwise some neurons fire on one side
  only, because of rounding or of where epsilon is added, and everything after
  them differs.
  """
  import jax
  import torch

  from mlf_jax.layers import NORMALIZATIONS, TDBatchNorm

  class ExactTDBatchNorm(TDBatchNorm):
    """With an epsilon that does not count."""

    epsilon: float = 1e-12

  epsilon = ExactTDBatchNorm.epsilon
  NORMALIZATIONS['tdbn_exact'] = ExactTDBatchNorm
  torch.set_default_dtype(torch.float64)
  with jax.enable_x64(True):
    for network in networks:
      for num_levels in levels:
        task = in_float64(make_task(network, num_levels, surrogate))
        infer, train, _ = jax_functions(task, normalization='tdbn_exact')
        logits, losses = infer(), (train(), train())
        for library in libraries:
          infer, train, _ = torch_functions(library, task, epsilon=epsilon)
          print(
            f'{network}, K = {num_levels}, {library}: logits differ by '
            f'{furthest(infer(), logits)}, loss by '
            f'{furthest(train(), losses[0])}, after a step by '
            f'{furthest(train(), losses[1])}',
            flush=True,
          )


def in_float64(task):
  """Converts a task to float64."""
  weights = {
    name: np.asarray(value, np.float64)
    for name, value in task['weights'].items()
  }
  return task | {
    'x': task['x'].astype(np.float64),
    'weights': weights,
  }


def furthest(value, expected):
  """Formats the largest difference beside the largest expected value."""
  off = np.abs(np.subtract(value, expected)).max()
  return f'{off:.2g} of {np.abs(expected).max():.2g}'


def not_installed(modules):
  """Returns the modules that cannot be imported."""
  return [m for m in modules if importlib.util.find_spec(m) is None]


def main():
  """Measures or compares the libraries that are installed."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS)
  )
  parser.add_argument(
    '--levels', nargs='+', type=int, choices=THRESHOLDS, default=[1, 3]
  )
  parser.add_argument('--steps', type=int, default=7, help='timed repetitions')
  parser.add_argument('--device', choices=PLATFORMS, default='cpu')
  parser.add_argument('--batch', type=int, help="samples, if not the table's")
  parser.add_argument('--surrogate', choices=SURROGATES, default='rectangular')
  parser.add_argument(
    '--libraries',
    nargs='+',
    choices=LINES,
    default=list(PEERS),
    metavar='LIBRARY[:VARIANT]',
    help='beside mlf_jax: ' + ', '.join(LINES),
  )
  parser.add_argument('--check', action='store_true')
  parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if min(arguments.steps, arguments.batch or 1) < 1:
    parser.error('--steps and --batch must be at least 1')
  if arguments.worker:
    work(*arguments.worker, arguments.steps, arguments.device)
    return
  missing = {}
  for library, modules in PEERS.items():
    if absent := not_installed(modules):
      missing[library] = modules
      print(
        f'{library} is left out, {" and ".join(absent)} not installed: '
        f'pip install {" ".join(modules)}',
        file=sys.stderr,
      )
  lines = [
    line
    for line in arguments.libraries
    if line.partition(':')[0] not in missing
  ]
  libraries = dict.fromkeys(line.partition(':')[0] for line in lines)
  libraries.pop('mlf_jax', None)
  if not lines:
    return
  # This process draws weights, on the CPU.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  modules = dict.fromkeys(m for library in libraries for m in PEERS[library])
  print(machine(arguments.device, modules))
  if arguments.check:
    check = libraries, arguments.levels, arguments.surrogate
    check_units(*check)
    check_networks(libraries, arguments.networks, *check[1:])
  else:
    compare(['mlf_jax', *lines], arguments)


if __name__ == '__main__':
  main()
