"""The command lines: help, and every mistake as one line."""

import pathlib
import signal
import subprocess
import sys

import pytest

from mlf_jax.cli import main
from mlf_jax.training import memory_estimate, scaling_estimate, trainer, workdir
from mlf_jax.training.scaling_estimate import AllReduces, Linear, StepCosts
from tests import quick
from tests.training import tiny

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  yield from quick.of_the_library()


def run(capsys, *arguments):
  """Exit code, standard output and standard error of a command."""
  code = main([*arguments])
  output = capsys.readouterr()
  return code, output.out, output.err


def refused(capsys, *arguments):
  """Standard error of a command that has to end with one line."""
  code, _, err = run(capsys, *arguments)
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1, err
  return err


@pytest.mark.parametrize(
  ('config', 'lines'),
  [
    ('cifar10:plain14', ['model.depth=14', 'model.residual=plain', 'seed=0']),
    ('cifar10:vgg16', ['model.name=spiking_vgg16', 'model.dropout_rate=0.25']),
    ('cifar10_short:lif', ['unit.thresholds=(0.6,)', 'batch_size=128']),
    ('cifar10_short:plain20', ['model.residual=plain']),
    ('cifar100:ds32', ['data.name=cifar100', 'model.depth=32']),
    ('cifar10_dvs', ['data.split=tail', 'unit.thresholds=(0.6, 1.6, 2.6)']),
    (f'{REPOSITORY}/configs/n_mnist.py', ['data.window_ms=30.0']),
  ],
)
def test_help_explains_every_field(
  capsys, monkeypatch, tmp_path, config, lines
):
  """From any folder, by name or by path."""
  monkeypatch.chdir(tmp_path)
  code, out, _ = run(capsys, 'train', f'--config={config}', '--help')
  assert code == 0
  for line in lines:
    assert f'--config.{line}\n' in out
  explained = ' '.join(out.split())
  assert 'samples per training step, on all devices together' in explained
  assert 'decay of the membrane potential per timestep' in explained
  assert 'optimiser (sgd, adamw)' in explained


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config=nope.py'], "'nope.py' is unknown; known: cifar10, cifar100"),
    (['--config', 'digit'], "(did you mean 'digits' or 'digits_modern'?)"),
    (['--config=cifar10:ds9x'], "unknown variant 'ds9x'"),
    (['--config=cifar10:ds9', '--config.seed=1'], '6n + 2'),
    (['--config=digits:foo'], "digits.py: there are no variants, got 'foo'"),
    (['--config=LICENSE'], 'LICENSE, line 1: SyntaxError'),
    (['--config.model.dept=8'], 'no such field: dept; Did you mean "depth"'),
    (['--config.batch_size=many'], '--config.batch_size=many: invalid literal'),
    (['--config.augment.flip=3'], '3: Non-boolean argument to boolean flag\n'),
    (['--config.model.widths=(4,8)'], '3 stage_sizes but 2 widths'),
    (['--config.unit.thresholds=(1.6,0.6)'], 'must be strictly increasing'),
    (['--config.unit.thresholds=(a,b)'], 'thresholds must be numeric'),
    (['--config.data.name=arrays'], "default_config(data='arrays')"),
    (['--workdir'], 'argument --workdir: expected one argument'),
    (['--wrokdir=x'], "Unknown command line flag 'wrokdir'"),
    (['digits'], "unexpected argument 'digits'"),
    (['--workdir=/dev/null/run'], 'cannot write to the workdir /dev/null/run'),
    ([f'--workdir={REPOSITORY}/train.py'], 'is a file; name a directory'),
  ],
)
def test_mistake_is_one_line(capsys, monkeypatch, arguments, message):
  monkeypatch.chdir(REPOSITORY)
  assert message in refused(capsys, 'train', *arguments)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('c.bach_size = 64', 'line 4: AttributeError: Key "bach_size" does not'),
    ('c.batch_size = "64"', 'line 4: TypeError: Could not override field'),
    ('c.batch_size = many', 'line 4: NameError: name many is not defined'),
    ('return {}', 'returns no ConfigDict'),
    ('LOSSES["own"] = 3', "mine.py, line 4: loss 'own': it must be a Loss"),
  ],
)
def test_mistake_in_a_configuration_file_is_one_line(
  capsys, tmp_path, line, message
):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from mlf_jax.training import LOSSES, default_config\n'
    f'def get_config():\n  c = default_config()\n  {line}\n  return c\n'
  )
  assert message in refused(capsys, 'train', f'--config={path}')


def test_values_may_follow_after_a_space_and_the_last_one_wins(capsys):
  _, out, _ = run(
    capsys,
    'train',
    *('--config.seed', '3', '--config.log_every', '3'),
    *('--config', 'cifar10:ds14', '--noconfig.augment.flip'),
    *('--config.unit.thresholds=(0.6, 1.6)', '--config.log_every=4'),
    '--config.unit.thresholds=(0.5,)',
    '--help',
  )
  for line in ('seed=3', 'log_every=4', 'model.depth=14', 'augment.flip=False'):
    assert f'--config.{line}\n' in out
  assert '--config.unit.thresholds=(0.5,)\n' in out


PARTS = """
import dataclasses
import jax.numpy as jnp
from mlf_jax import data
from mlf_jax.layers import UNITS, SpikingUnit
from mlf_jax.training import LOSSES, Loss, default_config
from tests.training import tiny


@UNITS.register('leaky')
@dataclasses.dataclass(frozen=True)
class Leaky(SpikingUnit):
  scale: float = 1.0
  decay: float = dataclasses.field(
    default=0.5, metadata={'help': 'decay per timestep', 'low': 0, 'high': 1}
  )

  def init_state(self, parameters, shape, dtype):
    return jnp.zeros(shape, dtype)

  def step(self, parameters, state, x_t):
    state = self.decay * state + x_t
    return state, self.scale * jnp.tanh(state)


def squared_error(logits, labels):
  return jnp.square(logits - labels).sum(-1)


LOSSES['squared'] = Loss(squared_error)
data.DATASETS['blobs'] = data.DatasetEntry(
  lambda options: tiny.dataset((8, 8, 1)), 4, (8, 8, 1)
)


def get_config():
  config = default_config(data='blobs', unit='leaky')
  config.batch_size = config.eval_batch_size = 16
  config.num_steps = config.model.time_steps = 2
  config.loss = 'squared'
  config.model.depth, config.model.widths = 8, (2, 3, 4)
  return config
"""


def test_parts_of_ones_own_from_a_configuration_file(capsys, tmp_path):
  """A unit, a loss and a data set, each registered in the file."""
  path, directory = tmp_path / 'mine.py', tmp_path / 'run'
  path.write_text(PARTS)
  command = ('train', f'--config={path}', f'--workdir={directory}')
  _, out, _ = run(capsys, *command, '--help')
  assert '--config.unit.decay=0.5\n' in out and 'decay per timestep' in out
  message = refused(capsys, *command, '--config.unit.decay=2.0')
  assert 'config.unit.decay must be at least 0 and at most 1' in message
  code, out, err = run(capsys, *command)
  assert (code, err) == (0, '') and 'finished in' in out
  # The same command says that it is finished; the run can be evaluated.
  assert 'is finished' in run(capsys, *command)[1]
  evaluate = 'evaluate', f'--workdir={directory}', f'--config={path}'
  code, out, _ = run(capsys, *evaluate, '--cost')
  assert code == 0 and out.startswith('step 2  T = 2  test/loss')
  assert 'layer3_0/shortcut_conv' in out and '4.6 pJ' in out
  assert out.endswith(f'cost in {directory / "cost.json"}\n')


@pytest.mark.filterwarnings('default:the surrogate windows')
def test_windows_that_do_not_tile_are_warned_of_in_one_line(capsys):
  """Before the data are looked at: none of that size can be had."""
  arguments = '--config.unit.width=0.8', '--config.batch_size=4000'
  code, _, err = run(capsys, 'train', *arguments)
  *warnings, mistake = err.splitlines()
  assert code == 2 and mistake.startswith('error: ') and warnings
  assert all(line.startswith('warning: the surr') for line in warnings)


def test_memory(capsys, monkeypatch):
  """A network of 1 MB, and 0.1 MB per sample; see `memory_estimate`."""
  monkeypatch.setattr(
    memory_estimate, 'measure', lambda config, size: 1_000_000 + 100_000 * size
  )
  code, out, _ = run(capsys, 'memory', '--config=cifar10', '--bytes=2e6')
  assert code == 0
  assert (
    'cifar10, T = 4, memory fastest, batch 64 on 8 devices: 2 MB per device '
    '(1.0 MB, and 0.10 MB for each of its samples)\n'
    'largest batch in 2 MB: 10 per device, 80 in all'
  ) in out
  code, out, _ = run(capsys, 'memory', '--bytes=1.2e6')
  assert code == 1 and 'not even 4 samples fit into 1,200,000 bytes' in out
  message = refused(capsys, 'memory', '--config.batch_size=8')
  assert 'at least 4 samples per device' in message


def test_scaling(capsys, monkeypatch):
  """Steps of 10 us per sample; two all-reduces of 6.8 us and 1.2 us per hop."""
  size = Linear(0.0, 10e-6 * 0.5 * 3.35e12)
  costs = StepCosts(Linear(0.0, 1.0), size, AllReduces(2, 0))
  monkeypatch.setattr(scaling_estimate, 'step_costs', lambda config: costs)
  command = 'scaling', '--devices=1,2, 256', '--attained=0.5'
  code, out, _ = run(capsys, *command)
  assert code == 0
  assert 'digits, T = 4, float32, on h100 at 0.5 of its peak' in out
  assert '2 all-reduces' in out
  rows = [line.split() for line in out.splitlines()[-3:]]
  assert rows == [
    ['1', '0.00', '64', '0.64', '1.00', '64', '0.64', '1.00', '-', '-'],
    ['2', '0.02', '32', '0.34', '0.95', '128', '0.66', '0.98', '2', '4'],
    [
      *('256', '0.13', '-', '-', '-', '16384', '0.77', '0.83'),
      *('14', '3584'),
    ],
  ]
  message = refused(capsys, *command, '--chip=h300')
  assert "--chip 'h300' is unknown" in message and 'v5p' in message
  message = refused(
    capsys, *command, '--chip=v5e', '--config.model.dtype=float64'
  )
  assert "'float64' is not computed by v5e" in message
  assert 'config.batch_size' in refused(
    capsys, *command, '--config.batch_size=0'
  )


def test_evaluate_needs_a_run_with_a_checkpoint(capsys, tmp_path):
  message = refused(capsys, 'evaluate', '--workdir', str(tmp_path))
  assert f'{tmp_path}/config.json does not exist' in message
  with workdir.claimed_workdir(tmp_path, tiny.config()):
    pass
  message = refused(capsys, 'evaluate', '--workdir', str(tmp_path))
  assert 'has no checkpoint yet' in message


@pytest.mark.parametrize(
  'arguments',
  [
    ['evaluate', '--workdir=x', '--time_steps', '0'],
    ['evaluate', '--workdir=x', '--time_steps', '²'],
    ['evaluate', '--workdir=x', '--checkpoint', 'worst'],
    ['evaluate', '--workdir=x', '--config.seed=1'],
    ['memory', '--bytes=-1'],
    ['memory', '--bytes=0'],
    ['prepare', 'n_mnist', '--downsample=nan'],
    ['scaling', '--devices=8,12'],
    ['scaling', '--devices=8,'],
    ['scaling', '--devices=0'],
    ['scaling', '--attained=1.5'],
    ['scaling', '--attained=0'],
    ['trian'],
    [],
  ],
)
def test_wrong_arguments_are_explained(capsys, arguments):
  refused(capsys, *arguments)


def test_interrupted_training_ends_with_the_number_of_the_signal(
  capsys, monkeypatch
):
  def train(*unused, **options):
    raise trainer.Interrupted('interrupted at step 3', signal.SIGTERM)

  monkeypatch.setattr(trainer, 'train', train)
  code, _, err = run(capsys, 'train')
  assert (code, err) == (128 + signal.SIGTERM, 'interrupted at step 3\n')


@pytest.mark.parametrize(
  'command', [[f'{REPOSITORY}/train.py'], ['-m', 'mlf_jax', 'train']]
)
def test_programs_start_from_any_folder(tmp_path, command):
  """Both are the same program."""
  out = subprocess.run(
    [sys.executable, *command, '--config=digits', '--help'],
    capture_output=True,
    text=True,
    check=True,
    cwd=tmp_path,
  ).stdout
  assert '--config.data.name=digits\n' in out
