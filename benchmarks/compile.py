"""What there is to wait for: `python benchmarks/compile.py`.

Prints medians and quartiles of how long it takes to trace and compile training
steps, as ratios turn by turn; how a network of 482 layers trains; the time of
`import mlf_jax` and from `python train.py` to the end of the first step; and
how much faster batches are made than they are trained with, on scikit-learn's
digits and on random images in the number and size of CIFAR-10.
"""

import argparse
import functools
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import cases
import jax
import numpy as np

from mlf_jax import data
from mlf_jax.training import footprint
from mlf_jax.training import run as run_lib
from mlf_jax.training.parallel import DataParallel


def main():
  """Measures one thing after the other."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--repetitions', type=cases.at_least(2), default=3)
  parser.add_argument(
    '--parts', nargs='+', choices=PARTS, default=list(PARTS), metavar='PART'
  )
  arguments = parser.parse_args()
  print(cases.machine())
  for part in arguments.parts:
    PARTS[part](arguments.repetitions)
  return 0


def compilation(repetitions):
  """Of training steps as a run has them: more timesteps, more layers."""
  gesture, short = (cases.configuration('dvs_gesture') for _ in range(2))
  short.model.time_steps = 4
  cifar, deep = (cases.configuration('cifar10') for _ in range(2))
  deep.model.depth, deep.model.scan_blocks = 110, True
  for name, config, base in (
    ('T = 40 / T = 4, Gesture DS-20', gesture, short),
    ('DS-110 in loops / DS-20, CIFAR-10', deep, cifar),
  ):
    seconds = cases.race(
      {'config': _compiler(config), 'base': _compiler(base)}, repetitions, 1
    )
    print(
      f'compile {name}: {cases.ratio(seconds["config"], seconds["base"])}, '
      f'{statistics.median(seconds["config"]):.1f} s'
    )


def _compiler(config):
  def compile_anew():
    jax.clear_caches()
    footprint.compile_step(config, 8)

  return compile_anew


def deep_network(repetitions):
  """482 narrow layers, in loops, with the least memory, on digits."""
  del repetitions  # Minutes.
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


def start(repetitions):
  """Importing the package; training until the first step is done."""
  program = (
    'import time; began = time.perf_counter(); import mlf_jax; '
    'print(time.perf_counter() - began)'
  )
  imports = [
    float(subprocess.check_output([sys.executable, '-c', program]))
    for _ in range(repetitions)
  ]
  print(f'import mlf_jax: {cases.spread(imports, ".1f")} s')
  first_steps = [_first_step() for _ in range(repetitions)]
  print(
    f'python train.py to the first step: {cases.spread(first_steps, ".1f")} s'
  )


def _first_step():
  with tempfile.TemporaryDirectory() as workdir:
    command = [sys.executable, 'train.py', '--config.log_every=1']
    began = time.perf_counter()
    with subprocess.Popen(
      [*command, f'--workdir={workdir}/run'],
      cwd=cases.REPOSITORY,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    ) as process:
      for line in process.stdout:
        if line.startswith('step 1/'):
          seconds = time.perf_counter() - began
          break
      else:
        raise SystemExit('train.py ended before its first step')
      process.send_signal(signal.SIGTERM)
      process.stdout.read()
  return seconds


def batches(repetitions):
  """Making them and sending them to the device, beside training with them."""
  config = cases.configuration('digits')
  making, training = _making_and_training(
    config, run_lib.load(config).train_set, repetitions
  )
  times = [t / m for t, m in zip(training, making, strict=True)]
  print(f'digits: batches are made {cases.spread(times, ".0f")} times as fast')

  config = cases.configuration('cifar10')
  rng = np.random.default_rng(0)
  train_set = data.Dataset(
    name='random',
    split='train',
    split_name='none',
    images=rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8),
    labels=rng.integers(0, 10, 50_000).astype(np.int32),
    num_classes=10,
    scale=255.0,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
  )
  making, training = _making_and_training(config, train_set, repetitions)
  parts = [100 * m / t for t, m in zip(training, making, strict=True)]
  print(
    f'random images as CIFAR-10: making a batch of {config.batch_size} takes '
    f'{cases.spread(parts, ".4f")} % of a step of '
    f'{statistics.median(training):.1f} s'
  )


def _making_and_training(config, train_set, repetitions):
  """Seconds for a batch, the mean of an epoch, and for a training step."""
  schedule = run_lib.Schedule(config, train_set)
  steps = run_lib.make_steps(config, train_set, schedule)
  parallel = DataParallel(config.parallel)
  state = run_lib.init_state(
    run_lib.Run(config, train_set, train_set, schedule, steps)
  )
  make = functools.partial(
    data.train_batch, train_set, config.batch_size, config.seed
  )
  step = parallel.map(steps.train, donate=True)
  epoch, count = 0, schedule.steps_per_epoch

  def make_epoch():
    nonlocal epoch
    for i in range(epoch * count, (epoch + 1) * count):
      batch = parallel.put(make(i))
    epoch += 1
    return batch

  def train():
    nonlocal state
    state, metrics = step(state, parallel.put(make(0)))
    return metrics

  seconds = cases.race({'make': make_epoch, 'train': train}, repetitions)
  return [s / count for s in seconds['make']], seconds['train']


PARTS = {
  'compilation': compilation,
  'deep_network': deep_network,
  'start': start,
  'batches': batches,
}

if __name__ == '__main__':
  raise SystemExit(main())
