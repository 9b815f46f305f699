"""A network as StableHLO, run by a program that imports JAX alone."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.__main__ import main
from mlf_jax.interop.stablehlo import export_stablehlo
from tests.interop import networks

# Takes the number of timesteps of an image.
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
from jax import export

def program(name):
  return export.deserialize(bytearray(Path(name).read_bytes())).call

samples = np.load('samples.npy')
logits = program('net.stablehlo')(samples)
start, feed = program('net.start.stablehlo'), program('net.feed.stablehlo')
shown = int(sys.argv[1]) * [samples]
frames = samples.swapaxes(0, 1) if samples.ndim == 5 else shown
state = start(frames[0])
for frame in frames:
  state, so_far = feed(state, frame)
np.savez('out.npz', logits=logits, so_far=so_far)
assert not any(m.split('.')[0] in ('mlf_jax', 'flax') for m in sys.modules)
"""


@pytest.mark.parametrize('kind', networks.SHAPES)
def test_a_program_with_jax_alone_gets_the_same_numbers(kind, tmp_path):
  net, samples = networks.make(kind), networks.samples(kind)
  written = export_stablehlo(net, tmp_path / 'net.stablehlo')
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
    p.name for p in written
  )
  np.save(tmp_path / 'samples.npy', samples)
  subprocess.run([sys.executable, '-c', PROGRAM, '5'], cwd=tmp_path, check=True)
  with np.load(tmp_path / 'out.npz') as out:
    np.testing.assert_allclose(out['logits'], net(samples), atol=1e-5)
    np.testing.assert_allclose(out['so_far'], out['logits'], atol=1e-5)
  described = json.loads((tmp_path / 'net.json').read_text())
  assert described['classes'] == ['up', 'down', 'turn']
  assert described['platforms'] == ['cpu', 'cuda', 'tpu']
  shape = ', '.join(map(str, networks.SHAPES[kind]))
  assert described['sample'] == f'uint8[batch, {shape}]'


def test_the_command_writes_a_run(finished, tmp_path, capsys):
  """The small network of the run has no unit that could be replaced."""
  arguments = ['--workdir', str(finished[0]), '--out', str(tmp_path / 'net')]
  assert main(['export', *arguments]) == 2
  assert 'has no attribute unit' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_the_suffix_of_another_format_is_refused(finished, tmp_path, capsys):
  arguments = ['--workdir', str(finished[0]), '--out', str(tmp_path / 'w.onnx')]
  assert main(['export', *arguments]) == 2
  assert 'give --format=onnx, or another' in capsys.readouterr().err
  assert main(['export', *arguments, '--format=nir']) == 2
  assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_said(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot write') as info:
    export_stablehlo(networks.make('images'), tmp_path / 'file' / 'net')
  assert '\n' not in str(info.value)


@pytest.mark.parametrize('unit', [networks.CallsPython(), networks.Prints()])
def test_an_operation_that_no_file_can_hold_is_said(unit, tmp_path):
  net = networks.make('images', unit=unit)
  with pytest.raises(
    UserError, match=r'StableHLO cannot express .+: .'
  ) as info:
    export_stablehlo(net, tmp_path / 'net')
  assert '\n' not in str(info.value)
  assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_unit_is_not_laid_on_the_format(tmp_path):
  net = networks.make('images', unit=networks.DividesByZero())
  with pytest.raises(ZeroDivisionError):
    export_stablehlo(net, tmp_path / 'net')
