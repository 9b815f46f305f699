"""The programs in `benchmarks/` that are quick enough to run."""

import importlib
import itertools
import json
import pathlib
import re
import sys
import types

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'


README = BENCHMARKS.parent / 'README.md'


@pytest.fixture
def run(monkeypatch, capsys):
  """Runs a program with arguments; returns exit code and output."""
  monkeypatch.syspath_prepend(BENCHMARKS)

  def run_program(name, *arguments, **replaced):
    program = importlib.import_module(name)
    for function, value in replaced.items():
      monkeypatch.setattr(program, function, value)
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    code = program.main()
    captured = capsys.readouterr()
    return code, captured.out + captured.err

  yield run_program
  for path in BENCHMARKS.glob('*.py'):
    sys.modules.pop(path.stem, None)


def test_readers_stand_damaged_recordings(run):
  # A clock that is read once an input: as many whatever the machine does.
  clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
  code, output = run('fuzz_events', '--seconds=200', '--seed=1', time=clock)
  found = re.fullmatch(
    r'(\d+) inputs: (\d+) accepted, (\d+) clean errors, 0 failures; memory at '
    r'most 0\.\d+ of what is allowed\n',
    output,
  )
  assert (code, bool(found)) == (0, True), output
  inputs, accepted, errors = map(int, found.groups())
  assert inputs == accepted + errors == 199
  assert min(accepted, errors) > 10


@pytest.mark.parametrize(
  ('breaks', 'says'),
  [
    (lambda events: events.t.__setitem__(0, -1), 'AssertionError'),
    (lambda events: 1 // 0, 'ZeroDivisionError'),
    (lambda events: bytes(1 << 22), 'bytes of memory for 30 of a file'),
  ],
)
def test_a_reader_that_breaks_its_promise_is_a_failure(run, breaks, says):
  from mlf_jax.data.event_files import read_n_mnist

  def broken(file, **options):
    events = read_n_mnist(file, **options)
    if len(events):
      breaks(events)
    return events

  code, output = run(
    'fuzz_events',
    '--seconds=60',
    read_n_mnist=broken,
    FILE_BYTES={broken: 5},
    valid_recordings=lambda rng: [bytes(range(30))] * 5,
    damaged=lambda rng, recordings: recordings[0],
  )
  assert code == 1
  assert says in output
  assert '10 failures' in output
  for path in re.findall('saved as (.+)', output):
    assert pathlib.Path(path).read_bytes() == bytes(range(30))
    pathlib.Path(path).unlink()


def test_benchmark_of_the_readers_covers_every_format(run):
  _, output = run('events', '--events=16384', resident_share=lambda *_: 0.0)
  assert output.count('M events/s read, memory') == 4
  assert output.count('read and binned') == 3


@pytest.mark.parametrize('absent', ['torch', 'spikingjelly snntorch'])
def test_benchmark_of_peers_says_which_are_not_installed(
  run, monkeypatch, absent
):
  for module in ('torch', 'spikingjelly', 'snntorch'):
    # None is a module that cannot be imported.
    module_or_none = None if module in absent.split() else pytest
    monkeypatch.setitem(sys.modules, module, module_or_none)
  _, output = run('peers')
  lines = output.splitlines()
  assert len(lines) == 2
  for line, library in zip(lines, ('spikingjelly', 'snntorch'), strict=True):
    missing = library if library in absent else 'torch'
    assert line == (
      f'{library} is left out, {missing} not installed: '
      f'pip install torch {library}'
    )


def test_benchmark_of_peers_measures_what_it_wrote(run, monkeypatch, tmp_path):
  from mlf_jax import models

  def tiny(thresholds):
    return models.SpikingResNet(
      (1,), (4,), 3, time_steps=2, normalize_input=True, thresholds=thresholds
    )

  monkeypatch.setattr(models, 'tiny', tiny, raising=False)
  peers = importlib.import_module('peers')
  monkeypatch.setitem(peers.NETWORKS, 'tiny', ('tiny', (2, 2, 6, 6, 2)))
  path = tmp_path / 'task.npz'
  peers.save_task(path, peers.make_task('tiny', 1))
  _, output = run(
    'peers',
    *('--worker', 'mlf_jax', str(path), '--steps=3'),
    WARM_UP=1,
    most_resident=lambda: 7,
  )
  result = json.loads(output)
  assert result.pop('memory') == 7
  assert result.keys() == {'training', 'inference'}
  for median, least, most in result.values():
    assert 0 < least <= median <= most


def test_readme_has_the_output_of_every_benchmark(run):
  readme = importlib.import_module('readme')
  text = README.read_text()
  commands = readme.commands(text)
  assert {command.split()[0] for command in commands} == {'python'}
  programs = {f'benchmarks/{path.name}' for path in BENCHMARKS.glob('*.py')}
  not_measuring = {'benchmarks/cases.py', 'benchmarks/readme.py'}
  assert {c.split()[1] for c in commands} == programs - not_measuring
  for command in commands:
    # Something was printed.
    assert readme.replaced(text, command, '') != text


def test_readme_takes_the_output_of_what_is_run(run, monkeypatch, tmp_path):
  readme = importlib.import_module('readme')
  (tmp_path / 'one.py').write_text("print('one, measured')")
  (tmp_path / 'two.py').write_text('raise SystemExit(1)')
  text = """<!-- output of: python {}.py -->
```
{}
```
"""
  before = text.format('one', 'old') + text.format('two', 'kept')
  (tmp_path / 'README.md').write_text(before)
  monkeypatch.setattr(readme, 'REPOSITORY', tmp_path)
  assert run('readme', 'one')[0] == 0
  after = text.format('one', 'one, measured') + text.format('two', 'kept')
  assert (tmp_path / 'README.md').read_text() == after
  # What fails leaves the README as it is.
  with pytest.raises(SystemExit, match=r'two\.py has failed'):
    run('readme', 'two')
  assert (tmp_path / 'README.md').read_text() == after
  assert {p.name for p in tmp_path.iterdir()} == {
    'README.md',
    'one.py',
    'two.py',
  }


@pytest.mark.parametrize('part', ['start', 'batches'])
def test_benchmark_of_waiting_covers_what_it_says(run, monkeypatch, part):
  compile_ = importlib.import_module('compile')
  if part == 'start':
    monkeypatch.setattr(compile_, '_first_step', lambda: 1.0)
  else:
    monkeypatch.setattr(
      compile_, '_making_and_training', lambda *_: ([1.0, 1.0], [200.0, 200.0])
    )
  code, output = run('compile', '--repetitions=2', '--parts', part)
  assert code == 0
  if part == 'start':
    assert re.search(r'import mlf_jax: \d+\.\d \(', output)
    assert 'first step: 1.0 (1.0-1.0) s' in output
  else:
    assert 'made 200 (200-200) times as fast' in output
    assert 'takes 0.5000 (0.5000-0.5000) % of a step' in output
