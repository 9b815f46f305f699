"""Writes a trained network as an ONNX file, through jax2onnx."""

import contextlib
import io
import logging
import os
import pathlib
import warnings

import jax
import jax.numpy as jnp
from jax import export as jax_export

from mlf_jax.errors import UserError
from mlf_jax.interop import portable
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.training import workdir as workdir_lib

# Version of ONNX's operators, and the first one of ONNX Runtime that has it.
OPSET = 23


def export_onnx(
  net: TrainedNetwork, path: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes the function from raw samples to logits, for any batch size.

  Weights and preprocessing are inside; the names of the classes are in the
  metadata of the model, under `classes`, one per line. Where ONNX Runtime
  rounds a convolution in another way and a membrane potential lies as close to
  a threshold, a spike differs.

  Args:
    net: the network.
    path: name of the file, with one input `samples` and one output `logits`.

  Returns:
    The path, in a list.

  Raises:
    UserError: jax2onnx is missing, the network cannot be expressed, or the file
      not be written.
  """
  if net.dtype == 'float64':
    raise UserError(
      'a float64 network is not written as ONNX, whose runtimes compute '
      'convolutions in float32'
    )
  try:
    import jax2onnx
  except ImportError as error:
    raise UserError(
      'ONNX needs jax2onnx: pip install "mlf_jax[onnx]"'
    ) from error
  function = portable.whole_function(net)
  (batch,) = jax_export.symbolic_shape('batch')
  preprocessing = net.preprocessing
  samples = jax.ShapeDtypeStruct(
    (batch, *preprocessing.sample_shape), jnp.dtype(preprocessing.dtype)
  )
  # Mistakes in the network are not the format's.
  jax.eval_shape(function, samples)
  with _quiet(), portable.expressible('ONNX'):
    model = jax2onnx.to_onnx(
      function,
      [samples],
      model_name='mlf_jax',
      opset=OPSET,
      input_names=['samples'],
      output_names=['logits'],
    )
  _drop_unused(model.graph)
  entry = model.metadata_props.add()
  entry.key, entry.value = 'classes', '\n'.join(net.class_names)
  path = pathlib.Path(path).expanduser()
  workdir_lib.write_bytes(path, model.SerializeToString())
  return [path]


def _drop_unused(graph) -> set[str]:
  """Drops constants that no node reads; ONNX Runtime warns about each.

  Returns the names that the graph reads.
  """
  used = {output.name for output in graph.output}
  for node in graph.node:
    used.update(node.input)
    for attribute in node.attribute:
      if attribute.HasField('g'):
        used |= _drop_unused(attribute.g)
  kept = [array for array in graph.initializer if array.name in used]
  del graph.initializer[:]
  graph.initializer.extend(kept)
  return used


@contextlib.contextmanager
def _quiet():
  """Leaves out what jax2onnx says about its own work.

  It prints progress, asks JAX for float64 where that is off, and logs the
  shapes that it cannot infer.
  """
  log = logging.getLogger('onnx_ir')
  level = log.level
  log.setLevel(logging.ERROR)
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      warnings.catch_warnings(),
    ):
      warnings.filterwarnings('ignore', 'Explicitly requested dtype')
      yield
  finally:
    log.setLevel(level)
