"""A network as ONNX, run by ONNX Runtime."""

import sys

import pytest

from mlf_jax import UserError
from mlf_jax.interop.onnx import export_onnx
from tests.interop import networks


@pytest.mark.slow
@pytest.mark.parametrize('kind', networks.SHAPES)
def test_onnx_runtime_gets_the_same_classes(kind, tmp_path, capfd):
  pytest.importorskip('jax2onnx')
  runtime = pytest.importorskip('onnxruntime')
  net, samples = networks.make(kind), networks.samples(kind, 200)
  (path,) = export_onnx(net, tmp_path / 'net.onnx')
  session = runtime.InferenceSession(path)
  (logits,) = session.run(None, {'samples': samples})
  assert capfd.readouterr() == ('', '')
  expected = net(samples)
  off = abs(logits - expected).max(-1) > 1e-5
  # A spike differs where a membrane lies within rounding of a threshold.
  assert off.mean() <= 0.05, f'{off.sum()} samples of {len(off)}'
  assert (logits.argmax(-1) != expected.argmax(-1)).mean() <= 0.005
  classes = session.get_modelmeta().custom_metadata_map['classes']
  assert classes.split('\n') == ['up', 'down', 'turn']


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_said(tmp_path):
  pytest.importorskip('jax2onnx')
  net = networks.make('images', unit=networks.CallsPython())
  with pytest.raises(UserError, match=r'ONNX cannot express .*pure_callback'):
    export_onnx(net, tmp_path / 'net.onnx')
  assert not list(tmp_path.iterdir())


def test_a_missing_package_and_float64_are_said(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  net = networks.make('images')
  with pytest.raises(UserError, match=r'pip install "mlf_jax\[onnx\]"'):
    export_onnx(net, tmp_path / 'net.onnx')
  net.config.model.dtype = 'float64'
  with pytest.raises(UserError, match='a float64 network is not written'):
    export_onnx(net, tmp_path / 'net.onnx')
  assert not list(tmp_path.iterdir())
