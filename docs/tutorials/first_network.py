# %% [markdown]
# # A first network in ten minutes
#
# We train a small spiking DS-ResNet on real handwritten digits that come with
# scikit-learn, so nothing is downloaded, and look at what it gets wrong.
#
# [This page as a notebook](first_network.ipynb)

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import mlf_jax
from mlf_jax import data, training
from mlf_jax.analysis import plots

# %% [markdown]
# ## The data
#
# A data set is loaded by its name: 1,797 images of 8 x 8 pixels, divided into
# training and test samples. The division has a name too, because accuracies on
# different ones do not compare.

# %%
digits = data.load('digits')
print(digits.split_name, len(digits.train), len(digits.test))

figure, axes = plt.subplots(1, 8, figsize=(8, 1.4))
for ax, image, label in zip(axes, digits.train.images, digits.train.labels):
  ax.imshow(image[..., 0], cmap='gray')
  ax.set(title=str(label), xticks=[], yticks=[])

# %% [markdown]
# ## The configuration
#
# A configuration holds everything that decides the numbers of a run. It starts
# with the paper's recipe for CIFAR-10; we make the network narrow and the run
# short. `python train.py --help` explains every field; the values that it shows
# are those of the configuration `digits`. A still image is shown to the network
# for several timesteps, here four.

# %%
config = training.default_config(data='digits')
config.model.depth = 8
config.model.widths = (8, 16, 32)
config.model.time_steps = 4
config.unit.thresholds = (0.6, 1.6, 2.6)  # K = 3 levels, one threshold each
config.num_epochs = 12
config.schedule.name = 'cosine'
config.augment.crop_padding = 1
config.log_every = 22

# %% [markdown]
# ## Training
#
# `train` compiles the training step once, trains, evaluates, and leaves
# checkpoints, metrics and the result in a directory. Called again, it continues
# where it stopped, with the same numbers as if it had not.

# %%
workdir = tempfile.mkdtemp()
result = training.train(config, workdir=workdir)

# %%
print(f'test accuracy {result["test/accuracy"]:.4f}')

# %% [markdown]
# ## The trained network
#
# `load` gives the network with everything that comes before and after it: raw
# images in, scaled as those it was trained on; classes out. It takes the best
# checkpoint, and with `checkpoint='last'` the one whose accuracy is printed
# above.

# %%
net = mlf_jax.load(workdir)
logits = net(digits.test.images)
predicted = logits.argmax(-1)
plots.confusion(digits.test.labels, predicted, 10)

# %%
wrong = np.flatnonzero(predicted != digits.test.labels)[:8]
figure, axes = plt.subplots(1, 8, figsize=(8, 1.6))
for ax in axes:
  ax.axis('off')
for ax, i in zip(axes, wrong):
  ax.imshow(digits.test.images[i][..., 0], cmap='gray')
  ax.set_title(f'{digits.test.labels[i]}, not {predicted[i]}')

# %% [markdown]
# ## What comes next
#
# - [The MLF unit by hand](mlf_unit.html): what happens inside a neuron.
# - [Images and recordings of your own](your_data.html).
# - [Why is my network silent?](silent.html): looking inside.
