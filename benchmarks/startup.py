"""Times compilation, start and batches: `python benchmarks/startup.py`.

Prints, as medians and quartiles: the time to trace and compile training steps,
as ratios turn by turn; the time of `import mlf_jax`, and from
`python train.py` to the end of the first step; and how much faster batches are
made than trained with, on scikit-learn's digits and on random images in the
number and size of CIFAR-10. Also trains a network of 482 layers.

`--parts cifar10`, for a GPU: the first step of the CIFAR-10 network on such
images, prepared before, and an epoch beside its steps alone.
"""

import argparse
import functools
import io
import itertools
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings

import cases
import jax
import numpy as np
import optax

from mlf_jax import data
from mlf_jax.data.images.cifar_archive import ARCHIVES
from mlf_jax.training import config as config_lib
from mlf_jax.training import memory_estimate
from mlf_jax.training.configured_data import normalizer
from mlf_jax.training.optimizer import make_optimizer
from mlf_jax.training.sharding import AXIS, DataParallel
from mlf_jax.training.state import init_state
from mlf_jax.training.step import train_step


def main():
  """Measures one part after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=3)
  parser.add_argument(
    '--parts', nargs='+', choices=PARTS, default=_DEFAULT, metavar='PART'
  )
  parser.add_argument(
    '--images',
    type=cases.at_least(80),
    default=50_000,
    help='for training, in the part cifar10',
  )
  arguments = parser.parse_args()
  print(cases.machine())
  for part in arguments.parts:
    PARTS[part](arguments)
  return 0


def compilation(arguments):
  """Compiles training steps with more timesteps and with more layers."""
  gesture, short = (cases.configuration('dvs_gesture') for _ in range(2))
  short.model.time_steps = 4
  cifar, deep = (cases.configuration('cifar10') for _ in range(2))
  deep.model.depth, deep.model.scan_blocks = 110, True
  for name, config, base in (
    ('T = 40 / T = 4, Gesture DS-20', gesture, short),
    ('DS-110 in loops / DS-20, CIFAR-10', deep, cifar),
  ):
    seconds = cases.race(
      {'config': _compiler(config), 'base': _compiler(base)},
      arguments.repetitions,
      1,
    )
    print(
      f'compile {name}: {cases.ratio(seconds["config"], seconds["base"])}, '
      f'{statistics.median(seconds["config"]):.1f} s'
    )


def _compiler(config):
  def compile_anew():
    jax.clear_caches()
    memory_estimate.compile_step(config, 8)

  return compile_anew


def deep_network(arguments):
  """Trains 482 narrow layers, in loops, with the least memory, on digits."""
  del arguments  # Once takes minutes.
  began = time.perf_counter()
  with tempfile.TemporaryDirectory() as workdir:
    subprocess.run(
      [
        *(sys.executable, 'train.py', f'--workdir={workdir}/run'),
        '--config.model.depth=482',
        '--config.model.scan_blocks=True',
        '--config.memory=smallest',
        '--config.model.widths=(4,8,16)',
        '--config.optimizer.learning_rate=0.003',
        '--config.schedule.warmup_epochs=0.0',
        '--config.num_steps=22',
        '--config.log_every=2',
      ],
      cwd=cases.REPOSITORY,
      stdout=subprocess.DEVNULL,
      check=True,
    )
    seconds = time.perf_counter() - began
    result = json.loads(pathlib.Path(workdir, 'run/result.json').read_text())
    lines = pathlib.Path(workdir, 'run/metrics.jsonl').read_text().splitlines()
  losses = [json.loads(line)['train/loss'] for line in lines]
  print(
    f'482 layers, {result["steps"]} steps on digits: {seconds:.0f} s, of which '
    f'compilation of the step {result["compile_seconds"]:.0f} s; loss from '
    f'{losses[0]:.1f} to {losses[-1]:.1f}'
  )


def start(arguments):
  """Imports the package; trains until the first step is done."""
  program = (
    'import time; began = time.perf_counter(); import mlf_jax; '
    'print(time.perf_counter() - began)'
  )
  imports = [
    float(subprocess.check_output([sys.executable, '-c', program]))
    for _ in range(arguments.repetitions)
  ]
  print(f'import mlf_jax: {cases.spread(imports, ".1f")} s')
  first_steps = [_until(1)[0] for _ in range(arguments.repetitions)]
  print(
    f'python train.py to the first step: {cases.spread(first_steps, ".1f")} s'
  )


def _until(*steps, options=()):
  """Seconds of `python train.py` until the log shows steps; then it stops."""
  seconds = []
  with tempfile.TemporaryDirectory() as workdir:
    command = [sys.executable, 'train.py', f'--config.log_every={steps[0]}']
    # The first start on a machine finds nothing compiled.
    environment = dict(os.environ)
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    began = time.perf_counter()
    with subprocess.Popen(
      [*command, *options, f'--workdir={workdir}/run'],
      cwd=cases.REPOSITORY,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    ) as process:
      for line in process.stdout:
        if line.startswith(f'step {steps[len(seconds)]}/'):
          seconds.append(time.perf_counter() - began)
          if len(seconds) == len(steps):
            break
      else:
        raise SystemExit(f'train.py ended before step {steps[len(seconds)]}')
      process.send_signal(signal.SIGTERM)
      process.stdout.read()
  return seconds


def cifar10(arguments):
  """Trains the CIFAR-10 network on prepared random images."""
  with tempfile.TemporaryDirectory() as folder:
    options = data.LoadOptions(data_dir=folder, manual_dir=folder)
    _write_random_cifar10(folder, arguments.images)
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', message='.*SHA-256')
      dataset = data.load('cifar10', options)
    flags = ['--config=cifar10', f'--config.data.dir={folder}']
    first_steps = [
      _until(1, options=flags)[0] for _ in range(arguments.repetitions)
    ]
    config = cases.configuration('cifar10')
    count = data.steps_per_epoch(dataset.train, config.batch_size)
    # Between two lines of the log that are an epoch apart.
    flags.append(f'--config.eval_every_epochs={config.num_epochs}')
    began, ended = _until(count, 2 * count, options=flags)
    alone = _steps_alone(config, dataset, count)
  epoch = ended - began
  print(
    f'CIFAR-10 to the first step: {cases.spread(first_steps, ".1f")} s; an '
    f'epoch of {count} steps of {config.batch_size}: {epoch:.1f} s, '
    f'{epoch / alone - 1:+.1%} beside its steps alone'
  )


def _write_random_cifar10(folder, images):
  """Writes an archive in the published layout."""
  archive, random = ARCHIVES['cifar10'], np.random.default_rng(0)
  names = '\n'.join(map(str, range(archive.num_classes['label'])))
  with tarfile.open(
    pathlib.Path(folder, archive.filename), 'w:gz', compresslevel=1
  ) as file:

    def add(name, content):
      member = tarfile.TarInfo(f'{archive.folder}/{name}')
      member.size = len(content)
      file.addfile(member, io.BytesIO(content))

    add(archive.label_files['label'], names.encode())
    for name in itertools.chain(*archive.split_files.values()):
      records = random.integers(0, 256, (images // 5, 1 + 3 * 32**2), np.uint8)
      records[:, 0] %= archive.num_classes['label']
      add(name, records.tobytes())


def _steps_alone(config, dataset, count):
  """Seconds of steps one after the other with a batch that is there."""
  step, state, make = _prepared_step(config, dataset)
  batch = make(0)
  for _ in range(3):
    state, metrics = step(state, batch)
  jax.block_until_ready(metrics)
  began = time.perf_counter()
  for _ in range(count):
    state, metrics = step(state, batch)
  jax.block_until_ready((state, metrics))
  return time.perf_counter() - began


def batches(arguments):
  """Makes batches and sends them to the device, beside training with them."""
  making, training = making_and_training(
    cases.configuration('digits'), data.load('digits'), arguments.repetitions
  )
  times = [t / m for t, m in zip(training, making, strict=True)]
  print(f'digits: batches are made {cases.spread(times, ".0f")} times as fast')

  config = cases.configuration('cifar10')
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8)
  labels = rng.integers(0, 10, 50_000)
  dataset = data.from_arrays(images, labels, images[:1], labels[:1])
  making, training = making_and_training(config, dataset, arguments.repetitions)
  parts = [100 * m / t for t, m in zip(training, making, strict=True)]
  print(
    f'random images as CIFAR-10: making a batch of {config.batch_size} takes '
    f'{cases.spread(parts, ".4f")} % of a step of '
    f'{statistics.median(training):.1f} s'
  )


def making_and_training(config, dataset, repetitions):
  """Returns seconds per batch (mean of an epoch) and per training step."""
  step, state, make = _prepared_step(config, dataset)
  epoch, count = 0, data.steps_per_epoch(dataset.train, config.batch_size)

  def make_epoch():
    nonlocal epoch
    for i in range(epoch * count, (epoch + 1) * count):
      batch = make(i)
    epoch += 1
    return batch

  def train():
    nonlocal state
    state, metrics = step(state, make(0))
    return metrics

  seconds = cases.race({'make': make_epoch, 'train': train}, repetitions)
  return [s / count for s in seconds['make']], seconds['train']


def _prepared_step(config, dataset):
  """A training step, its first state, and the batch of a step on the device."""
  parallel = DataParallel(config.parallel)
  model = config_lib.build_model(config, dataset.num_classes, AXIS)
  optimizer = make_optimizer(config, optax.constant_schedule(0.1))
  state = jax.device_put(
    init_state(model, optimizer, config.seed, dataset.sample_shape, ema=False),
    parallel.replicated,
  )
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    config=config,
    normalize=normalizer(config, dataset),
  )
  make = functools.partial(
    data.train_batch, dataset.train, config.batch_size, config.seed
  )
  return (
    parallel.parallelize(step, donate=True),
    state,
    lambda i: parallel.shard_batch(make(i)),
  )


PARTS = {
  'compilation': compilation,
  'deep_network': deep_network,
  'start': start,
  'batches': batches,
  'cifar10': cifar10,
}
# The last one takes hours on a CPU.
_DEFAULT = list(PARTS)[:-1]

if __name__ == '__main__':
  raise SystemExit(main())
