"""The programs in `benchmarks/` run, on the smallest problem each can have."""

import functools
import importlib
import itertools
import json
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from mlf_jax import activity, layers, models, training
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
  arguments = '--minutes=0.1', f'--workdir={tmp_path}', '--data_name=ten digits'
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
  network = functools.partial(models.SpikingResNet, (1,), (4,))
  entry = training.NetworkEntry(network)
  monkeypatch.setitem(training.NETWORKS, 'tiny', entry)
  config = training.default_config(model='tiny', data='digits')
  config.model.time_steps = 1
  startup = benchmark('startup')
  dataset = startup.data.load('digits')
  making, step = startup.making_and_training(config, dataset, 2)
  assert len(making) == len(step) == 2


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
  monkeypatch.setitem(peers.NETWORKS, 'tiny', ('tiny', FRAMES))
  path = tmp_path / 'task.npz'
  peers.save_task(path, peers.make_task('tiny', 1))
  _, output = main('peers', '--worker', 'mlf_jax', str(path), '--steps=3')
  result = json.loads(output)
  assert result.pop('memory') > 0
  assert result.keys() == {'training', 'inference'}
  for median, least, most in result.values():
    assert 0 < least <= median <= most


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
