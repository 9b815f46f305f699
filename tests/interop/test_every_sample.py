"""Every way out and back, over every test sample of a trained network."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlf_jax import data, load
from mlf_jax.__main__ import main
from mlf_jax.training import train
from tests.interop.test_elsewhere_document import programs
from tests.interop.test_stablehlo import PROGRAM

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs'
# Share of samples with another class that rounding may cause.
FEW = 0.005


def trained(name, tmp_path_factory):
  """A run of a narrow network, its test samples and their logits."""
  config = runpy.run_path(str(CONFIGS / f'{name}.py'))['get_config']()
  config.num_epochs = 6
  config.model.widths = (8, 16, 32)
  config.log_activity_every = 0
  workdir = tmp_path_factory.mktemp(name) / 'run'
  train(config, workdir=workdir)
  test = data.load(name).test
  logits = load(workdir)(test.images)
  # A network that has learned nothing would hide mistakes.
  assert (logits.argmax(-1) == test.labels).mean() > 0.8
  return workdir, test.images, logits


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  return trained('digits', tmp_path_factory)


@pytest.fixture(scope='module')
def moving_digits(tmp_path_factory):
  return trained('moving_digits', tmp_path_factory)


def compare(name, logits, expected):
  """Asserts few other classes, and prints all that differs."""
  logits = np.asarray(logits)
  assert logits.shape == expected.shape
  off = int((abs(logits - expected).max(-1) > 1e-5).sum())
  classes = int((logits.argmax(-1) != expected.argmax(-1)).sum())
  print(
    f'{name}: of {len(expected)} samples {off} with other spikes, {classes} '
    'with another class'
  )
  assert off <= 0.02 * len(expected)
  assert classes <= FEW * len(expected)


def test_reference_and_back(digits, tmp_path):
  workdir, samples, logits = digits
  weights, again = tmp_path / 'weights.npz', tmp_path / 'again'
  arguments = ['--workdir', str(workdir), '--out', str(weights)]
  assert main(['export-reference', *arguments]) == 0
  fields = '--config=digits', '--config.model.widths=(8, 16, 32)'
  arguments = [str(weights), '--workdir', str(again), *fields]
  assert main(['import-reference', *arguments]) == 0
  np.testing.assert_array_equal(load(again)(samples), logits)


def test_stablehlo(digits, tmp_path):
  workdir, samples, logits = digits
  file = tmp_path / 'net.stablehlo'
  assert main(['export', '--workdir', str(workdir), '--out', str(file)]) == 0
  np.save(tmp_path / 'samples.npy', samples)
  command = [sys.executable, '-c', PROGRAM, '4']
  subprocess.run(command, cwd=tmp_path, check=True)
  with np.load(tmp_path / 'out.npz') as out:
    compare('StableHLO, whole samples', out['logits'], logits)
    compare('StableHLO, frame by frame', out['so_far'], logits)


def test_programs_of_the_document(moving_digits, tmp_path, monkeypatch):
  """Runs them on a trained network and compares the logits they compute."""
  workdir, samples, logits = moving_digits
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'moving').symlink_to(workdir)
  np.save('samples.npy', samples)
  (whole,) = programs('In Python')
  exec(compile(whole, 'docs/elsewhere.md', 'exec'), names := {})
  compare('load', names['logits'], logits[:3])
  compare('a stream', names['so_far'], logits[:1])
  for heading in ('StableHLO', 'ONNX'):
    if heading == 'ONNX':
      pytest.importorskip('jax2onnx')
      pytest.importorskip('onnxruntime')
    form = heading.lower()
    arguments = ['--format', form, '--out', f'net.{form}']
    assert main(['export', '--workdir', 'runs/moving', *arguments]) == 0
    (program,) = programs(heading)
    exec(compile(program, 'docs/elsewhere.md', 'exec'), names := {})
    compare(heading, names['logits'], logits)
    if heading == 'StableHLO':
      compare('frame by frame', names['so_far'], logits)
    assert names['classes'] == [str(digit) for digit in range(10)]


def test_onnx(digits, tmp_path):
  pytest.importorskip('jax2onnx')
  runtime = pytest.importorskip('onnxruntime')
  workdir, samples, logits = digits
  arguments = ['--format', 'onnx', '--out', str(tmp_path / 'net.onnx')]
  assert main(['export', '--workdir', str(workdir), *arguments]) == 0
  session = runtime.InferenceSession(tmp_path / 'net.onnx')
  (got,) = session.run(None, {'samples': samples})
  compare('ONNX Runtime', got, logits)


@pytest.mark.parametrize('run', ['digits', 'moving_digits'])
def test_nir_and_back(run, tmp_path, request):
  nir = pytest.importorskip('nir')
  from mlf_jax.interop.nir import from_nir

  workdir, samples, logits = request.getfixturevalue(run)
  arguments = ['--format', 'nir', '--out', str(tmp_path / 'net.nir')]
  assert main(['export', '--workdir', str(workdir), *arguments]) == 0
  model, variables = from_nir(nir.read(tmp_path / 'net.nir'))
  got = np.concatenate(
    [
      np.asarray(model.apply(variables, samples[i : i + 100].astype('float32')))
      for i in range(0, len(samples), 100)
    ]
  )
  compare('NIR, read back', got, logits)
