"""Trains CIFAR-10 in the minutes given: `python benchmarks/cifar10.py
--minutes 9 --manual_dir DIR`.

Measures 100 steps and an evaluation, sets `num_epochs` so that training ends in
time, trains, and prints and writes Markdown: accuracy on all test images, the
curve, epochs, time, versions and device. Called again with the same `--workdir`
it continues with the same number of epochs.
"""

import argparse
import json
import pathlib
import time

import cases
import jax

from mlf_jax.training import config as config_lib
from mlf_jax.training import configured_data, restore, sharding, train, workdir
from mlf_jax.training.evaluation import make_evaluator

TRIAL_STEPS = 100
# Share of the time that is kept free for what varies.
_RESERVE = 0.05


def main():
  """Plans, trains and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
  parser.add_argument(
    '--config', default='cifar10_short', metavar='NAME[:VARIANT]'
  )
  parser.add_argument('--minutes', type=float, default=9.0)
  parser.add_argument('--manual_dir', default='', help='folder of the archive')
  parser.add_argument('--data_dir', default='', help='folder of prepared data')
  parser.add_argument('--data_name', default='', help='what to call the data')
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--seed', type=cases.at_least(0), default=0)
  parser.add_argument(
    '--workdir', type=pathlib.Path, default=pathlib.Path('runs/cifar10_short')
  )
  arguments = parser.parse_args()
  began = time.monotonic()
  name, _, variant = arguments.config.partition(':')
  config = cases.configuration(name, *filter(None, [variant]))
  config.seed, config.model.dtype = arguments.seed, arguments.dtype
  if 'manual_dir' in config.data:
    config.data.manual_dir = arguments.manual_dir
    config.data.dir = arguments.data_dir

  arguments.workdir.mkdir(parents=True, exist_ok=True)
  plan = arguments.workdir / 'plan.json'
  if not plan.exists():
    seconds = 60 * arguments.minutes
    workdir.write_json(plan, _plan(config, arguments.workdir, began, seconds))
  planned = workdir.read_json(plan)
  config.num_epochs = planned['num_epochs']
  result = train(config, workdir=arguments.workdir / 'run')
  text = _report(config, arguments, planned, result)
  print(text)
  (arguments.workdir / 'table.md').write_text(text)
  return 0


def _plan(config, folder, began, seconds):
  """Number of epochs that fit, from the time of steps and an evaluation."""
  trial = config.copy_and_resolve_references()
  trial.num_steps, trial.log_every = TRIAL_STEPS, TRIAL_STEPS // 2
  result = train(trial, workdir=folder / 'trial')
  lines = (folder / 'trial' / 'metrics.jsonl').read_text().splitlines()
  # The first half warms up.
  per_second = json.loads(lines[-1])['train/samples_per_second']

  restored = restore(folder / 'trial', 'last')
  dataset = configured_data.load_dataset(config)
  parallel = sharding.DataParallel(config.parallel)
  with jax.enable_x64(config_lib.is_float64(config)):
    model = restored.model.clone(axis_name=sharding.AXIS)
    evaluate = make_evaluator(config, model, dataset, parallel)
    variables = parallel.replicate(restored.state.eval_variables)
    evaluate(variables)  # Compiles.
    start = time.monotonic()
    evaluate(variables)
    evaluation = time.monotonic() - start

  epoch = len(dataset.train) / per_second + evaluation
  # What the trial took beside its steps comes again.
  start_up = (
    result['wall_seconds'] - TRIAL_STEPS * config.batch_size / per_second
  )
  left = (1 - _RESERVE) * seconds - (time.monotonic() - began) - start_up
  return {
    'minutes': seconds / 60,
    'samples_per_second': per_second,
    'evaluation_seconds': evaluation,
    'num_epochs': max(1, int(left / epoch)),
  }


def _report(config, arguments, planned, result):
  """The table and the curve, as Markdown."""
  path = arguments.workdir / 'run' / 'metrics.jsonl'
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  curve = [line for line in lines if 'test/accuracy' in line]
  versions = ', '.join(f'{k} {v}' for k, v in result['versions'].items())
  rows = {
    'configuration': f'`{arguments.config}`, {config.model.dtype}, seed '
    f'{config.seed}',
    'data': arguments.data_name or result['data'],
    'test images': f'{result["test_samples"]:,}',
    'test accuracy, last epoch': f'{100 * result["test/accuracy"]:.2f} %',
    'test accuracy, best epoch (chosen on the test images)': (
      f'{100 * result["best/test/accuracy"]:.2f} %, step {result["best/step"]}'
    ),
    'epochs': f'{config.num_epochs}',
    'seconds, with compilation': f'{result["wall_seconds"]:.0f}',
    'training images per second': f'{planned["samples_per_second"]:.0f}',
    'seconds per evaluation': f'{planned["evaluation_seconds"]:.2f}',
    'skipped steps': f'{result["skipped_steps"]}',
    'device': f'{result["num_devices"]} {result["device"]}',
    'versions': versions,
  }
  table = [f'| {name} | {value} |' for name, value in rows.items()]
  # Some twenty points of the curve, and always the last one.
  shown = curve[:: max(1, len(curve) // 20)]
  shown += curve[-1:] if shown[-1] is not curve[-1] else []
  points = [
    f'| {line["epoch"]} | {line["train/loss"]:.4f} | '
    f'{100 * line["train/accuracy"]:.2f} | {100 * line["test/accuracy"]:.2f} |'
    for line in shown
  ]
  return '\n'.join(
    [
      '| | |',
      '| --- | --- |',
      *table,
      '',
      '| epoch | training loss | training accuracy, % | test accuracy, % |',
      '| --- | --- | --- | --- |',
      *points,
      '',
    ]
  )


if __name__ == '__main__':
  raise SystemExit(main())
