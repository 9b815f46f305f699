"""Writes a trained network as StableHLO, which programs run without mlf_jax."""

import importlib.metadata
import json
import os
import pathlib

import jax
import jax.numpy as jnp
from jax import export as jax_export

from mlf_jax.interop import portable
from mlf_jax.interop.trained import TrainedNetwork
from mlf_jax.training import workdir as workdir_lib

PLATFORMS = ('cpu', 'cuda', 'tpu')
SUFFIX = '.stablehlo'
_READABLE = (
  'JAX promises to read this file with releases of the next 6 months (and with '
  'those of the last 3 weeks); keep the run itself for longer'
)


def export_stablehlo(
  net: TrainedNetwork, path: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes a network for the platforms in `PLATFORMS`, any batch size.

  Weights and preprocessing are inside. The numbers are those of the network
  whose units run step by step; there are no GPU kernels in the files.

  Args:
    net: the network.
    path: name of the first file, `NAME.stablehlo`: the logits of whole raw
      samples. Beside it are written `NAME.start.stablehlo` and
      `NAME.feed.stablehlo`, which take a recording frame by frame (see
      `portable.stream_functions`), and `NAME.json` with the names of the
      classes, shapes, dtypes and versions.

  Returns:
    The paths of the four files.

  Raises:
    UserError: the network cannot be exported, or a file not be written.
  """
  path = pathlib.Path(path).expanduser()
  base = path.with_suffix('') if path.suffix == SUFFIX else path
  preprocessing = net.preprocessing
  dtype = jnp.dtype(preprocessing.dtype)
  with jax.enable_x64(net.dtype == 'float64'):
    (batch,) = jax_export.symbolic_shape('batch')
    whole = jax.ShapeDtypeStruct((batch, *preprocessing.sample_shape), dtype)
    frame = jax.ShapeDtypeStruct(
      (batch, *preprocessing.sample_shape[-3:]), dtype
    )
    start, feed = portable.stream_functions(net)
    contents = {
      f'{base}{SUFFIX}': _serialized(portable.whole_function(net), whole),
      f'{base}.start{SUFFIX}': _serialized(start, frame),
    }
    state = jax.eval_shape(start, frame)
    contents[f'{base}.feed{SUFFIX}'] = _serialized(feed, state, frame)
    description = {
      'classes': list(net.class_names),
      'sample': _described(whole),
      'frame': _described(frame),
      'logits': f'{net.dtype}[batch, {preprocessing.num_classes}]',
      'state': [_described(leaf) for leaf in state],
      'time_steps': net.model.time_steps,
      'platforms': list(PLATFORMS),
      'x64': net.dtype == 'float64',
      'steps_trained': net.step,
      'readable': _READABLE,
      'versions': {
        name: importlib.metadata.version(name) for name in ('mlf_jax', 'jax')
      },
    }
  contents[f'{base}.json'] = (json.dumps(description, indent=2) + '\n').encode()
  written = []
  for name, content in contents.items():
    workdir_lib.write_bytes(pathlib.Path(name), content)
    written.append(pathlib.Path(name))
  return written


def _serialized(function, *arguments) -> bytes:
  jitted = jax.jit(function)
  jitted.trace(*arguments)  # Mistakes in the network are not the format's.
  with portable.expressible('StableHLO'):
    exported = jax_export.export(jitted, platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


def _described(array) -> str:
  return f'{array.dtype}[{", ".join(map(str, array.shape))}]'
