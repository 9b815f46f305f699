# %% [markdown]
# # Take it elsewhere: StableHLO, ONNX, NIR, scikit-learn
#
# A trained network leaves the library as a file that other programs run. We
# take the digits network that comes with the package.
#
# [This page as a notebook](elsewhere.ipynb)

# %%
import json
import pathlib
import tempfile

import numpy as np
from jax import export
from sklearn.model_selection import cross_val_score

import mlf_jax
from mlf_jax import data
from mlf_jax.interop.nir import from_nir, to_nir
from mlf_jax.interop.stablehlo import export_stablehlo

net = mlf_jax.load('zoo:digits')
test = data.load('digits').test
logits = net(test.images)
print(f'here: {(logits.argmax(-1) == test.labels).mean():.4f}')

# %% [markdown]
# ## StableHLO
#
# One file for CPUs, GPUs and TPUs, for any batch size, with scaling and
# normalisation inside. A program that runs it needs JAX and not this library.
# On the command line: `python -m mlf_jax export --workdir DIR --out FILE`.

# %%
folder = pathlib.Path(tempfile.mkdtemp())
for path in export_stablehlo(net, folder / 'digits.stablehlo'):
  print(path.name, f'{path.stat().st_size:,} bytes')

program = export.deserialize(
  bytearray((folder / 'digits.stablehlo').read_bytes())
)
elsewhere = np.asarray(program.call(test.images))
print('largest difference', abs(elsewhere - logits).max())
print('classes:', json.loads((folder / 'digits.json').read_text())['classes'])

# %% [markdown]
# ## ONNX
#
# `pip install "mlf_jax[onnx]"`, then `python -m mlf_jax export --workdir DIR
# --format=onnx --out net.onnx`. ONNX Runtime runs the file on its own:
# [Elsewhere](../elsewhere.html) shows how.
#
# ## NIR
#
# The format in which simulators and chips exchange spiking networks. Each level
# of an MLF unit becomes a leaky integrate-and-fire neuron.

# %%
graph = to_nir(net.model, net.variables, input_shape=(8, 8, 1))
kinds = [type(node).__name__ for node in graph.nodes.values()]
print({kind: kinds.count(kind) for kind in sorted({*kinds})})
model, variables = from_nir(graph)
again = model.apply(
  variables, net.preprocessing.normalize(test.images[:8], 'float32')
)
print('largest difference', abs(np.asarray(again) - logits[:8]).max())

# %% [markdown]
# ## scikit-learn
#
# The network as an estimator, for pipelines, searches and cross-validation.

# %%
from sklearn.datasets import load_digits

images, labels = load_digits(n_class=4, return_X_y=True)
classifier = mlf_jax.SpikingClassifier(
  image_shape=(8, 8),
  widths=(4, 8, 16),
  batch_size=32,
  num_epochs=6,
  config={'augment.crop_padding': 1},
  random_state=0,
)
print(cross_val_score(classifier, images / 16, labels, cv=2))
