"""`python -m mlf_jax study`: a grid of trainings, as a table and a plot."""

import pathlib
import re
import sys
import time

from mlf_jax.cli.argument_types import positive_int
from mlf_jax.cli.configuration import config_of, from_file, study_from_file
from mlf_jax.errors import UserError


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'study',
    help='train a grid of configurations, and compare them',
    description='Trains every cell of a study with several seeds and writes a '
    'table, a plot and the numbers. The same command continues an unfinished '
    'study; with more seeds, only those are trained.',
    allow_abbrev=False,
  )
  parser.add_argument(
    'study',
    metavar='NAME[:VARIANT]',
    help='name of a study, such as levels, or path of a file of your own with '
    'a function get_study',
  )
  parser.add_argument(
    '--config',
    metavar='NAME[:VARIANT]',
    help="configuration that the cells change, instead of the study's own "
    'small one; fields are set as --config.FIELD=VALUE',
  )
  parser.add_argument(
    '--seeds', type=positive_int, default=3, help='seeds (default: 3)'
  )
  parser.add_argument(
    '--workdir',
    default='',
    help='directory of the study; by default one under runs/ that belongs to '
    'its configurations',
  )
  parser.add_argument(
    '--processes',
    type=positive_int,
    help='trainings side by side (default: one per core, on accelerators one)',
  )
  parser.add_argument(
    '--run',
    metavar='CELL:SEED',
    help='train this run alone, for instance as one job of many on a cluster; '
    'without it, the command then prints the table',
  )
  parser.set_defaults(command_function=_study, takes_fields=True)


def _study(arguments):
  from mlf_jax.studies import cell

  study = study_from_file(arguments.study)
  configs = study.configs(_base(arguments, study))
  workdir = pathlib.Path(arguments.workdir).expanduser()
  if not arguments.workdir:
    name = pathlib.Path(arguments.study.partition(':')[0]).stem
    workdir = cell.default_workdir(name, configs)
  if arguments.run:
    return _one_run(arguments, study, configs, workdir)
  return _all_runs(arguments, study, configs, workdir)


def _base(arguments, study):
  """The configuration that the cells change."""
  from mlf_jax.training import with_fields

  base = from_file(arguments.config or study.config)
  if not arguments.config:
    base = with_fields(base, study.fields)
  return config_of(arguments, base)


def _with_seed(config, seed):
  config = config.copy_and_resolve_references()
  config.seed += seed
  return config


def _one_run(arguments, study, configs, workdir):
  from mlf_jax.studies import cell
  from mlf_jax.training import Interrupted

  match = re.fullmatch(r'(.*):(\d+)', arguments.run)
  if match is None or match[1] not in configs:
    raise UserError(
      f'--run {arguments.run!r} must be CELL:SEED, with one of the cells '
      f'{", ".join(configs)}'
    )
  name, seed = match[1], int(match[2])
  run = cell.directory(workdir, name, seed)
  try:
    cell.train_and_measure(study, _with_seed(configs[name], seed), run)
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal_number
  return 0


def _all_runs(arguments, study, configs, workdir):
  from mlf_jax.studies import cell, processes, summary
  from mlf_jax.training.trainer import versions

  runs = {
    f'{name}:{seed}': cell.directory(workdir, name, seed)
    for seed in range(arguments.seeds)
    for name in configs
  }
  waiting = {
    name: run for name, run in runs.items() if cell.measured(run, study) is None
  }
  print(
    f'{study.question}\n{len(configs)} cells, {arguments.seeds} seeds: '
    f'{len(runs)} runs, {len(runs) - len(waiting)} of them finished; output in '
    f'{workdir}',
    flush=True,
  )
  began, failed, done = time.monotonic(), [], 0

  def finished(name, code):
    nonlocal done
    done += 1
    outcome = cell.measured(waiting[name], study) if code == 0 else None
    if outcome is None:
      failed.append(name)
      text = f'failed; its output is in {outputs[name]}'
    else:
      text = _one_line(outcome)
    print(f'{done}/{len(waiting)}  {name}  {text}', flush=True)

  outputs = {name: run.with_suffix('.txt') for name, run in waiting.items()}
  if waiting:
    number = arguments.processes or processes.default_number()
    try:
      processes.run_all(
        {name: _command(arguments, workdir, name) for name in waiting},
        outputs,
        number,
        finished,
      )
    except KeyboardInterrupt:
      print('the same command continues the study', file=sys.stderr)
      raise
  seconds = time.monotonic() - began
  outcomes = {
    name: {
      seed: outcome
      for seed in range(arguments.seeds)
      if (outcome := cell.measured(runs[f'{name}:{seed}'], study))
    }
    for name in configs
  }
  about = {'study': arguments.study, 'versions': versions()}
  print(f'\n{summary.table(outcomes)}')
  files = summary.write(study, outcomes, about, workdir)
  print(f'{seconds:.0f} s; {", ".join(map(str, files))}')
  if failed:
    raise UserError(
      f'{len(failed)} of {len(waiting)} runs failed, the first one '
      f'{failed[0]!r}: {_last_line(outputs[failed[0]])}'
    )
  return 0


def _command(arguments, workdir, name):
  """The command that trains one run."""
  command = [sys.executable, '-m', 'mlf_jax', 'study', arguments.study]
  if arguments.config:
    command.append(f'--config={arguments.config}')
  command += [f'--workdir={workdir}', f'--run={name}']
  return command + arguments.fields


def _one_line(outcome):
  if 'diverged' in outcome:
    return 'no finite gradient'
  # A number that is not finite is stored as None.
  values = (
    f'{name} {value:.4g}'
    for name, value in outcome['values'].items()
    if value is not None
  )
  return f'{", ".join(values)}  {outcome["wall_seconds"]:.0f} s'


def _last_line(path):
  lines = path.read_text().strip().splitlines()
  return lines[-1] if lines else 'it printed nothing'
