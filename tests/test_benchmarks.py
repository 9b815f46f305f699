"""The programs in `benchmarks/` run, on the smallest problem each can have."""

import argparse
import functools
import importlib
import itertools
import json
import pathlib
import shlex
import sys
import types

import jax
import numpy as np
import pytest

from mlf_jax import activity, layers, models, training
from mlf_jax.neuron import _gpu
from mlf_jax.training import memory_estimate
from tests import quick
from tests.training import tiny as tiny_config

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'

tiny = functools.partial(models.SpikingResNet, (1,), (4,), 3, time_steps=2)
FRAMES = (4, 2, 6, 6, 2)

quickly = pytest.fixture(scope='module', autouse=True)(quick.of_the_library)


@pytest.fixture(autouse=True)
def promotion():
  """Optax's schedules mix integers and floats."""
  with jax.numpy_dtype_promotion('standard'):
    yield


@pytest.fixture
def benchmark(monkeypatch):
  """Imports a program by name."""
  monkeypatch.syspath_prepend(BENCHMARKS)
  yield importlib.import_module
  for path in BENCHMARKS.glob('*.py'):
    sys.modules.pop(path.stem, None)


@pytest.fixture
def cases(benchmark, monkeypatch):
  """The module `cases` with a tiny network beside the paper's."""
  cases = benchmark('cases')
  monkeypatch.setitem(cases.NETWORKS, 'tiny', (tiny, FRAMES))
  monkeypatch.setitem(cases.CONFIGURATIONS, 'tiny', 'digits')
  return cases


@pytest.fixture
def main(benchmark, monkeypatch, capsys):
  """Runs a program with arguments; returns exit code and output."""

  def main(name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    code = benchmark(name).main()
    captured = capsys.readouterr()
    return code or 0, captured.out + captured.err

  return main


def test_neuron_runs(main):
  code, output = main('neuron', '--values=40', '--repetitions=2')
  assert (code, output.count('forward')) == (0, 4)


def test_step_runs(main, cases):
  code, output = main('step', '--networks=tiny', '--repetitions=2')
  assert (code, output.count('spiking / ReLU')) == (0, 2)
  assert output.count('/ fastest') == 3


@pytest.fixture
def kernels(benchmark, interpreted, monkeypatch):
  """The program `kernels`, comparing three timesteps and two levels only."""
  kernels = benchmark('kernels')
  monkeypatch.setattr(kernels, '_TIMESTEPS', (3,))
  monkeypatch.setattr(kernels, '_LEVELS', (2,))
  return kernels


@pytest.mark.slow
def test_kernels_are_compared_with_loops(main, cases, kernels):
  arguments = '--networks', 'tiny', '--neurons=9', '--repetitions=2'
  code, output = main('kernels', *arguments)
  assert (code, output.count('kernels / loops')) == (0, 2), output
  assert output.count(': 0 of') == 2


def test_kernels_that_compute_something_else_are_found(
  main, kernels, monkeypatch
):
  forward = _gpu.forward
  monkeypatch.setattr(
    _gpu, 'forward', lambda unit, x, *rest: forward(unit, x + 0.25, *rest)
  )
  code, output = main('kernels', '--networks', '--neurons=200')
  assert (code, 'not the same' in output) == (1, True)


def test_units_run(main, cases):
  code, output = main(
    'units', '--network=tiny', '--units', 'lif', 'mlf', '--repetitions=2'
  )
  assert (code, output.count('training'), output.count('memory')) == (0, 2, 2)


def test_activity_runs(main, benchmark, monkeypatch):
  cases, activity = benchmark('cases'), benchmark('activity')
  config = _one_block(cases.configuration('digits'), monkeypatch)
  monkeypatch.setattr(cases, 'configuration', lambda name: config)
  monkeypatch.setattr(activity, 'CONFIGURATIONS', {'digits': 4 * 8})
  code, output = main('activity', '--repetitions=2')
  assert (code, 'every 1,000 steps' in output) == (0, True)


def test_levels_are_tabulated_and_not_measured_twice(
  main, benchmark, monkeypatch, tmp_path
):
  levels = benchmark('levels')

  def train(config, workdir):
    workdir.mkdir(exist_ok=True)
    return {'test/accuracy': 0.5 + 0.25 * config.seed}

  def inspect_run(workdir, checkpoint):
    measured.append(workdir.name)
    unit = layers.MLF()
    x = np.zeros((2, 3, 4), np.float32)
    seen = unit.observe({}, x, unit.init_state({}, x.shape[1:], x.dtype))
    layer = activity.merge({'units1': activity.LayerActivity.of(seen)})
    norms = {'conv1': 1.0, 'layer1_0/conv2': 3.0, 'voting': 9.0}
    return types.SimpleNamespace(activity=layer, gradient_norms=norms)

  measured = []
  monkeypatch.setattr(levels, 'train', train)
  monkeypatch.setattr(levels, 'inspect_run', inspect_run)
  options = '--configs=digits', '--levels', '1', '3', '--seeds=2'
  for _ in range(2):
    code, output = main('levels', *options, f'--workdir={tmp_path}')
  assert code == 0 and len(measured) == 4
  assert '| whole network | K = 1 | K = 3 |' in output
  assert '| test accuracy | 0.625 (0.5 to 0.75) |' in output
  assert '| last / first | 3 (3 to 3) |' in output
  assert '| `units1` | 1 (1 to 1) | 1 (1 to 1) |' in output


def _one_block(config, monkeypatch):
  """A configuration with a network of one block in place of its own."""

  def build(*, num_classes, time_steps, unit, axis_name, **unused):
    return models.SpikingResNet(
      (1,), (2,), num_classes, time_steps, unit, axis_name=axis_name
    )

  entry = training.NetworkEntry(build)
  monkeypatch.setitem(training.NETWORKS, 'one_block', entry)
  new = training.default_config(model='one_block', data=config.data.name)
  new.model.time_steps = 2
  return new


def test_memory_runs(main, cases, monkeypatch):
  # Predictions, which compile more batches, have tests of their own.
  measured = lambda config, batch_size: 1e9 + batch_size
  monkeypatch.setattr(memory_estimate, 'measure', measured)
  code, output = main('memory', '--networks=tiny')
  assert (code, output.count('/ ReLU'), output.count('+0.0%')) == (0, 3, 3)


def test_cifar10_fits_its_time_and_writes_a_table(
  main, benchmark, monkeypatch, tmp_path
):
  """On digits, with a small network and a clock of its own steps."""
  config = tiny_config.small(num_steps=0, eval_batch_size=360)
  cases = benchmark('cases')
  monkeypatch.setattr(
    cases, 'configuration', lambda *unused: config.copy_and_resolve_references()
  )
  monkeypatch.setattr(benchmark('cifar10'), 'TRIAL_STEPS', 4)
  arguments = (
    '--minutes=0.05',
    f'--workdir={tmp_path}',
    '--data_name=ten digits',
  )
  code, output = main('cifar10', *arguments)
  plan = json.loads((tmp_path / 'plan.json').read_text())
  assert code == 0 and plan['num_epochs'] >= 1
  table = (tmp_path / 'table.md').read_text()
  assert table in output
  assert '| data | ten digits |' in table
  assert f'| epochs | {plan["num_epochs"]} |' in table
  assert table.splitlines()[-1].startswith(f'| {plan["num_epochs"]} | ')
  # Called again, it keeps to its plan and finds the run finished.
  code, output = main('cifar10', *arguments)
  assert code == 0 and 'is finished' in output and table in output


@pytest.mark.slow
def test_killed_runs_end_as_if_nobody_had_killed_them(main, monkeypatch):
  """Four kills of one process; two have tests in `training`."""
  monkeypatch.setenv('XLA_FLAGS', quick.FLAGS)
  code, output = main('faults', '--faults=4', '--processes=1')
  assert code == 0 and '4 of 4 survived, bit for bit' in output, output


def test_plain_unit_computes_what_the_fast_one_computes(cases):
  fast, plain = cases.layers.MLF(), cases.PlainMLF()
  x = jax.random.normal(jax.random.key(0), (3, 5))
  state = fast.init_state({}, (5,), x.dtype)
  for ours, theirs in zip(
    jax.tree.leaves(fast.run({}, x, state)),
    jax.tree.leaves(plain.run({}, x, state)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_batches_are_timed_beside_training(benchmark, monkeypatch):
  startup = benchmark('startup')
  config = _one_block(startup.cases.configuration('digits'), monkeypatch)
  dataset = startup.data.load('digits')
  making, step = startup.making_and_training(config, dataset, 2)
  assert len(making) == len(step) == 2


def test_an_epoch_is_timed_beside_its_steps(main, benchmark, monkeypatch):
  """On prepared random images; the seconds of `train.py` are made up."""
  startup = benchmark('startup')
  config = _one_block(startup.cases.configuration('cifar10'), monkeypatch)
  config.data.name = 'cifar10'
  monkeypatch.setattr(startup.cases, 'configuration', lambda name: config)

  def until(*steps, options):
    started.append(steps)
    assert pathlib.Path(options[1].partition('=')[2], 'cifar10').is_dir()
    return [2.0] if len(steps) == 1 else [60.0, 120.0]

  started = []
  monkeypatch.setattr(startup, '_until', until)
  code, output = main(
    'startup', '--parts=cifar10', '--images=640', '--repetitions=2'
  )
  count = 640 // config.batch_size
  assert code == 0 and started == [(1,), (1,), (count, 2 * count)]
  assert 'CIFAR-10 to the first step: 2.0 (2.0-2.0) s' in output
  assert f'an epoch of {count} steps of {config.batch_size}: 60.0 s' in output


@pytest.fixture
def visit(main, benchmark, monkeypatch, tmp_path):
  """Runs `gpu` with parts of so many seconds in place of its own."""
  gpu = benchmark('gpu')
  program = tmp_path / 'part.py'
  program.write_text(
    'import sys, time\nprint(*sys.argv[1:])\ntime.sleep(float(sys.argv[1]))\n'
    'sys.exit(int(sys.argv[2]))\n'
  )
  monkeypatch.setattr(gpu, 'FOLDER', tmp_path)
  output = tmp_path / 'tables.txt'

  def visit(minutes, **parts):
    monkeypatch.setattr(gpu, 'PARTS', parts)
    code, printed = main('gpu', f'--minutes={minutes}', f'--output={output}')
    assert output.read_text() == printed
    return code, printed

  return visit


def test_a_visit_to_a_gpu_is_one_file(visit):
  code, text = visit(
    1, step="part.py 0 0 'two words'", broken='part.py 0 3', last='part.py 0 0'
  )
  assert code == 1
  assert "# step: python benchmarks/part.py 0 0 'two words'" in text
  assert '\n0 0 two words\n' in text
  assert 'broken failed (3) after 0 s' in text
  assert 'last took 0 s' in text


def test_a_visit_to_a_gpu_ends_in_time(visit):
  code, text = visit(0.02, long='part.py 60 0', one='part.py', two='part.py')
  assert code == 1 and '\n60 0\n' in text
  assert 'long was stopped, because the time is up, after 1 s' in text
  assert text.endswith('not measured, because the time is up: one, two\n')


def test_the_parts_of_a_visit_can_be_rehearsed(benchmark, monkeypatch):
  """Their programs take the options, for the figures and to rehearse."""
  gpu, parse = benchmark('gpu'), argparse.ArgumentParser.parse_args

  class ParsedError(Exception):
    """The options are right."""

  def parse_only(parser):
    parse(parser)
    raise ParsedError

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_only)
  assert gpu.PARTS.keys() == gpu.REHEARSED.keys()
  for command in (*gpu.PARTS.values(), *gpu.REHEARSED.values()):
    program, *options = shlex.split(command)
    monkeypatch.setattr(sys, 'argv', [program, *options])
    with pytest.raises(ParsedError):
      benchmark(program.removesuffix('.py')).main()


def test_peers_says_which_libraries_are_not_installed(main, monkeypatch):
  # None stands for a module that cannot be imported.
  for module in ('torch', 'spikingjelly', 'snntorch'):
    monkeypatch.setitem(sys.modules, module, None)
  _, output = main('peers')
  assert 'pip install torch spikingjelly\n' in output
  assert 'pip install torch snntorch\n' in output


def test_peers_measures_what_it_wrote(main, benchmark, monkeypatch, tmp_path):
  monkeypatch.setattr(models, 'tiny', tiny, raising=False)
  peers = benchmark('peers')
  monkeypatch.setitem(peers.NETWORKS, 'tiny', ('tiny', FRAMES[1:]))
  path = tmp_path / 'task.npz'
  peers.save_task(path, peers.make_task('tiny', 1, 'arctan', batch=3))
  worker = '--worker', 'mlf_jax:balanced', str(path)
  _, output = main('peers', *worker, '--steps=3')
  result = json.loads(output)
  assert result.keys() == {'training', 'inference'}
  for measured in result.values():
    median, least, most = measured['seconds']
    assert 0 < least <= median <= most
    assert measured['memory'] > 0
  # On a GPU it is what XLA allocates: at least the frames.
  task = peers.load_task(path)
  memory = peers.jax_functions(task, 'balanced')[2]
  assert memory('training') > memory('inference') > task['x'].nbytes


def test_peers_tabulates_what_its_processes_print(main, benchmark, monkeypatch):
  peers = benchmark('peers')
  seconds = {'mlf_jax': 0.01, 'mlf_jax:balanced': 0.02, 'spikingjelly': None}

  def measure(line, path, steps, device):
    task = peers.load_task(path)
    measured.append((line, device, task['surrogate'], *task['x'].shape))
    if seconds[line] is None:
      return None
    part = {'seconds': [seconds[line]] * 3, 'memory': 2**20}
    return {'training': part, 'inference': part}

  measured = []
  monkeypatch.setattr(peers, 'measure', measure)
  monkeypatch.setattr(peers, 'machine', lambda *unused: 'a machine')
  monkeypatch.setattr(peers, 'not_installed', lambda modules: [])
  _, output = main(
    *('peers', '--networks', 'cifar10', '--levels=1', '--device=gpu'),
    *('--surrogate=arctan', '--libraries', 'mlf_jax:balanced', 'spikingjelly'),
  )
  assert measured == [
    (line, 'gpu', 'arctan', 128, 32, 32, 3) for line in seconds
  ]
  assert '20 (20-20)   2.00      1' in output
  assert 'spikingjelly                  failed' in output


def test_events_run(main, benchmark, monkeypatch):
  # Each share is measured by a process of its own.
  monkeypatch.setattr(benchmark('events'), 'resident_share', lambda *_: 0.0)
  code, output = main('events', '--events=16384')
  assert (code, output.count('M events/s')) == (0, 7)


def test_readers_stand_damaged_recordings(main, benchmark, monkeypatch):
  # A clock that is read once per input counts inputs on any machine.
  clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
  monkeypatch.setattr(benchmark('fuzz_events'), 'time', clock)
  code, output = main('fuzz_events', '--seconds=200', '--seed=1')
  assert (code, '199 inputs' in output) == (0, True), output
  assert '0 failures' in output


def test_a_reader_that_breaks_its_promise_is_a_failure(
  main, benchmark, monkeypatch, tmp_path
):
  fuzz = benchmark('fuzz_events')
  read = fuzz.read_n_mnist

  def broken(file, **options):
    events = read(file, **options)
    events.t[:1] = -1
    return events

  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  monkeypatch.setattr(fuzz, 'read_n_mnist', broken)
  monkeypatch.setattr(fuzz, 'FILE_BYTES', {broken: 5})
  code, output = main('fuzz_events', '--seconds=60')
  assert (code, 'AssertionError' in output) == (1, True)
  assert '10 failures' in output
