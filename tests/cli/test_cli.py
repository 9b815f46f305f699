"""The command lines: help, and every mistake as one line."""

import pathlib
import subprocess
import sys

import pytest

from mlf_jax import cli
from tests import quick
from tests.training import tiny

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPT = str(REPOSITORY / 'train.py')


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  yield from quick.of_the_library()


def train(capsys, *arguments):
  """Exit code, standard output and standard error of `train.py`."""
  code = cli.train_main([SCRIPT, *arguments])
  output = capsys.readouterr()
  return code, output.out, output.err


def test_help_shows_every_field_with_its_value(capsys):
  code, out, _ = train(capsys, '--help')
  assert code == 0
  assert 'usage: python train.py [--config=configs/NAME.py' in out
  assert '--config.data.name=digits' in out
  code, out, _ = train(capsys, '--config=configs/cifar10.py:ds44', '--help')
  assert code == 0
  for line in (
    '--config.data.name=cifar10',
    '--config.model.depth=44',
    '--config.model.widths=(64, 128, 256)',
    '--config.optimizer.learning_rate=0.1',
  ):
    assert line in out


@pytest.mark.parametrize(
  ('config', 'lines'),
  [
    ('cifar10.py', ['model.depth=20', 'model.residual=ds', 'num_epochs=110']),
    ('cifar10.py:plain14', ['model.depth=14', 'model.residual=plain']),
    ('cifar10.py:vgg16', ['model.name=spiking_vgg16', 'dropout_rate=0.25']),
    ('cifar100.py:ds32', ['data.name=cifar100', 'model.depth=32']),
  ],
)
def test_configuration_files(capsys, config, lines):
  _, out, _ = train(capsys, f'--config={REPOSITORY}/configs/{config}', '--help')
  for line in lines:
    assert line in out


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config=configs/nope.py'], 'no such file: '),
    (['--config=configs/nope.py'], 'in configs/ are cifar10.py, cifar100.py'),
    (['--config', 'configs/nope.py'], 'no such file: '),
    (['--config=configs/cifar10.py:ds9x'], "unknown variant 'ds9x'"),
    (['--config.model.dept=8'], 'no such field: dept; Did you mean "depth"'),
    (['--config.modl.depth=8'], 'no such field: modl'),
    (['--config.batch_size=many'], '--config.batch_size=many: invalid literal'),
    (['--config.seed=1.5'], '--config.seed=1.5: invalid literal'),
    (['--config=configs/digits.py:foo'], "has no variants, got 'foo'"),
    (['--config=README.md'], 'README.md: SyntaxError'),
    (['--config.seed=1', '--config=configs/cifar10.py:ds9'], '6n + 2'),
    (['--config.augment.flip=3'], 'Non-boolean argument to boolean flag'),
    (['--config.seed=4294967296'], 'config.seed must be below 2**31'),
    (['--config.optimizer.learning_rate=inf'], 'must be finite, got inf'),
    (['--config.model.widths=(4,8)'], 'must be one width a stage, of three'),
    (['--config.augment.crop_padding=9'], 'must be at most 8, the side'),
    (['--config.model.name=spiking_vgg16'], 'configs/cifar10.py:vgg16'),
    (['--wrokdir=x'], "Unknown command line flag 'wrokdir'"),
    (['digits'], "unexpected argument 'digits'"),
    (['--config.model.thresholds=(1.6,0.6)'], 'must be strictly increasing'),
    (['--config.model.thresholds=(0.0,0.6)'], 'must be positive'),
    (['--config.model.decay=1.5'], 'decay must lie in [0, 1], got 1.5'),
    (['--config.model.width=0.0'], 'width must be a positive number'),
    (['--config.model.widths=(0,1,2)'], 'widths must be positive'),
    (['--config.model.depth=21'], 'depth must be 6n + 2'),
    (['--config.data.name=digit'], "(did you mean 'digits'?)"),
    (['--config.model.name=resnet'], "(did you mean 'spiking_resnet'?)"),
    (['--config.optimizer.name=sdg'], "(did you mean 'sgd'?)"),
    (['--config.batch_size=12'], 'cannot be divided among 8 devices'),
    (['--config.batch_size=4000'], 'number of samples in digits train'),
    (['--workdir=/dev/null/run'], 'cannot write to the workdir /dev/null/run'),
    ([f'--workdir={SCRIPT}'], 'is a file; name a directory'),
  ],
)
def test_mistake_is_one_line(capsys, monkeypatch, arguments, message):
  monkeypatch.chdir(REPOSITORY)
  code, _, err = train(capsys, *arguments)
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert message in err


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('c.bach_size = 64', 'line 4: AttributeError: Key "bach_size" does not'),
    ('c.bach_size = 64', 'Did you mean "batch_size"'),
    ('c.batch_size = "64"', 'line 4: TypeError: Could not override field'),
    ('c.batch_size = many', 'line 4: NameError: name many is not defined'),
    ('return {}', 'returns no ConfigDict'),
  ],
)
def test_mistake_in_a_configuration_file_is_one_line(
  capsys, tmp_path, line, message
):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from mlf_jax.training.config import default\n'
    f'def get_config():\n  c = default()\n  {line}\n  return c\n'
  )
  code, _, err = train(capsys, f'--config={path}')
  assert code == 2
  assert err.startswith(f'error: --config: {path}' if 'c.' in line else 'error')
  assert err.count('\n') == 1 and message in err


def test_last_of_a_flag_given_twice_wins(capsys):
  _, out, _ = train(
    capsys,
    '--config.model.thresholds=(0.6,1.6)',
    '--config.model.thresholds=(0.5,)',
    '--help',
  )
  assert '--config.model.thresholds=(0.5,)' in out


def test_values_may_follow_after_a_space(capsys, monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  _, out, _ = train(
    capsys,
    *('--config.seed', '3', '--config.log_every', '3'),
    *('--config', 'configs/cifar10.py:ds14', '--noconfig.augment.flip'),
    '--help',
  )
  for line in ('seed=3', 'log_every=3', 'model.depth=14', 'augment.flip=False'):
    assert f'--config.{line}\n' in out
  code, _, err = train(capsys, '--config.seed', '-1')
  assert code == 2 and 'config.seed must be at least 0, got -1' in err


def test_help_names_the_choices(capsys):
  _, out, _ = train(capsys, '--help')
  assert '--config.model.residual=ds  (ds, plain)' in out


@pytest.mark.filterwarnings('default:the surrogate windows')
def test_windows_that_do_not_tile_are_warned_of_in_one_line(capsys, tmp_path):
  code, _, err = train(
    capsys,
    *tiny.FLAGS,
    f'--workdir={tmp_path / "run"}',
    '--config.model.width=0.8',
    '--config.num_steps=1',
  )
  assert code == 0
  lines = err.splitlines()
  assert lines and all(line.startswith('warning: the surr') for line in lines)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['evaluate', '--workdir', '/nowhere'], '/nowhere/config.json does not'),
    (['evaluate', '--workdir', 'tests'], 'tests/config.json does not exist'),
  ],
)
def test_evaluate_mistake_is_one_line(capsys, monkeypatch, arguments, message):
  monkeypatch.chdir(REPOSITORY)
  assert cli.main(arguments) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  assert message in err


def test_evaluate_needs_a_checkpoint(capsys, tmp_path):
  from mlf_jax.training import workdir

  with workdir.claim(tmp_path, tiny.config()):
    pass
  assert cli.main(['evaluate', '--workdir', str(tmp_path)]) == 2
  assert 'has no checkpoint yet' in capsys.readouterr().err
  for wrong in (
    ['--time_steps', '0'],
    ['--time_steps', '²'],
    ['--checkpoint', 'worst'],
  ):
    with pytest.raises(SystemExit) as stop:
      cli.main(['evaluate', '--workdir', str(tmp_path), *wrong])
    assert stop.value.code == 2


def test_modules_stay_light():
  """Importing the package imports no data set, checkpoint or plot library."""
  heavy = ('orbax', 'tensorflow_datasets', 'tensorflow', 'matplotlib', 'torch')
  code = (
    'import sys, mlf_jax, mlf_jax.interop.torch; '
    f'print([m for m in {heavy!r} if m in sys.modules])'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout
  assert out.strip() == '[]'
