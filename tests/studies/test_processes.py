"""Commands side by side: how many, on which cores, and what a signal does."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from mlf_jax.studies import processes


def program(text):
  return [sys.executable, '-c', textwrap.dedent(text)]


def test_commands_run_side_by_side_and_report(tmp_path):
  """Each notes when it began and ended: never more than two at a time."""
  text = """
    import sys, time
    print(time.monotonic(), flush=True)
    time.sleep(0.3)
    print(time.monotonic())
    sys.exit({code})
  """
  commands = {str(i): program(text.format(code=i)) for i in range(4)}
  outputs = {name: tmp_path / 'run' / f'{name}.txt' for name in commands}
  codes = {}
  processes.run_all(commands, outputs, 2, codes.__setitem__)
  assert codes == {str(i): i for i in range(4)}
  spans = [
    tuple(map(float, path.read_text().split())) for path in outputs.values()
  ]
  for began, _ in spans:
    assert sum(start <= began < end for start, end in spans) <= 2


def test_the_second_reads_what_the_first_has_compiled(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  command = program("""
    import jax
    def note(event, **unused):
      if event in ('/jax/compilation_cache/cache_hits',
                   '/jax/compilation_cache/cache_misses'):
        print(event.rpartition('_')[2], flush=True)
    jax.monitoring.register_event_listener(note)
    jax.jit(lambda x: 3 * x).lower(1.0).compile()
  """)
  outputs = {name: tmp_path / name for name in 'ab'}
  processes.run_all(dict.fromkeys('ab', command), outputs, 1, print)
  # On some processors XLA also logs a line about each program it reads.
  lines = {
    name: path.read_text().splitlines() for name, path in outputs.items()
  }
  assert lines['a'] == ['misses']
  assert 'hits' in lines['b'] and 'misses' not in lines['b']


@pytest.mark.skipif(
  not hasattr(os, 'sched_getaffinity'), reason='processes cannot be bound'
)
def test_each_has_cores_of_its_own(tmp_path):
  cores = os.sched_getaffinity(0)
  commands = {
    name: program("""
      import os, time
      print(*os.sched_getaffinity(0))
      time.sleep(0.2)
    """)
    for name in ('a', 'b')
  }
  outputs = {name: tmp_path / name for name in commands}
  processes.run_all(commands, outputs, 2, lambda *unused: None)
  assert os.sched_getaffinity(0) == cores
  used = [{*map(int, outputs[name].read_text().split())} for name in commands]
  assert used[0] | used[1] == cores
  assert len(cores) == 1 or not used[0] & used[1]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_commands_once(tmp_path, number):
  """They save, are waited for, and those that wait are not started."""
  child = """
    import pathlib, signal, sys, time
    got = []
    signal.signal(signal.SIGTERM, lambda *a: got.append('term'))
    signal.signal(signal.SIGINT, lambda *a: got.append('int'))
    print('ready', flush=True)
    while not got:
      time.sleep(0.01)
    time.sleep(0.3)
    print(*got, flush=True)
  """
  parent = f"""
    import pathlib, sys
    from mlf_jax.studies import processes
    commands = {{name: {program(child)!r} for name in 'abc'}}
    outputs = {{name: pathlib.Path({str(tmp_path)!r}) / name for name in 'abc'}}
    try:
      processes.run_all(commands, outputs, 2, print)
    except KeyboardInterrupt:
      sys.exit(7)
  """
  started = subprocess.Popen(program(parent))
  paths = [tmp_path / 'a', tmp_path / 'b']
  until = time.monotonic() + 60
  while not all(path.exists() and path.read_text() for path in paths):
    assert time.monotonic() < until
    time.sleep(0.05)
  started.send_signal(number)
  assert started.wait(60) == 7
  for path in paths:
    assert path.read_text().split() == ['ready', 'term']
  assert not (tmp_path / 'c').exists()
