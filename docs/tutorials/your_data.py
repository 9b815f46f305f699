# %% [markdown]
# # Images and recordings of your own
#
# Three ways in: arrays, a folder of images, recordings of an event camera. Here
# each is made on the spot, small enough to train in seconds.
#
# [This page as a notebook](your_data.ipynb)

# %%
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mlf_jax import data, training
from mlf_jax.data.events import FrameSpec, frames_of_file

folder = pathlib.Path(tempfile.mkdtemp())
random = np.random.default_rng(0)

# %% [markdown]
# ## Arrays
#
# Images are [sample, height, width, channel], labels whole numbers from 0 on.
# Nothing is mirrored or cropped at random unless you ask, as below.
# Here: discs, squares and stripes with noise.


# %%
def shape(kind):
  row, column = np.mgrid[:12, :12] - random.uniform(4, 7, (2, 1, 1))
  image = {
    0: row**2 + column**2 < 12,
    1: np.maximum(abs(row), abs(column)) < 3,
    2: np.sin(2 * row) > 0,
  }[kind]
  noisy = 170 * image + random.normal(40, 20, (12, 12))
  return noisy.clip(0, 255).astype(np.uint8)[..., None]


labels = np.arange(300) % 3
images = np.stack([shape(kind) for kind in labels])
figure, axes = plt.subplots(1, 6, figsize=(8, 1.5))
for ax, image in zip(axes, images):
  ax.imshow(image[..., 0], cmap='gray')
  ax.axis('off')

# %%
names = ('disc', 'square', 'stripes')
dataset = data.from_arrays(
  images[:240], labels[:240], images[240:], labels[240:], class_names=names
)


def small(config):
  config.model.depth = 8
  config.model.widths = (4, 8, 16)
  config.model.time_steps = 2
  config.batch_size = 32
  config.augment.crop_padding = 1
  config.num_epochs = 20
  config.schedule.name = 'cosine'
  return config


config = small(training.default_config(data='arrays'))
result = training.train(config, dataset, workdir=folder / 'arrays')
print(f'test accuracy {result["test/accuracy"]:.3f}')

# %% [markdown]
# ## A folder
#
# One folder per class below `train` and, if you divided the data yourself,
# below `test`. On the command line: `python train.py --config=folder
# --config.data.dir=DIR`.

# %%
for number, (image, label) in enumerate(zip(images, labels)):
  part = 'train' if number < 240 else 'test'
  path = folder / 'shapes' / part / names[label] / f'{number}.png'
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image[..., 0]).save(path)

config = small(training.default_config(data='folder'))
config.data.dir = str(folder / 'shapes')
config.augment.flip = True  # Mirror images are the same shapes.
result = training.train(config, workdir=folder / 'from_folder')
print(result['classes'], f'test accuracy {result["test/accuracy"]:.3f}')

# %% [markdown]
# With 60 test images, accuracies that differ by a few per cent say nothing.

# %% [markdown]
# ## Recordings
#
# The pixels of an event camera report each on its own that it became brighter
# or darker. A recording is the list of these events, in order of time: time in
# microseconds, column, row, and polarity, 1 for brighter and 0 for darker.
# Files of AEDAT, EVT, DAT, Event Stream, N-MNIST, NumPy and HDF5 are read, some
# with `pip install "mlf_jax[events]"`. Frames count the events of a stretch of
# time.

# %%
count = 2000
time = np.sort(random.integers(0, 50_000, count))
events = np.zeros(count, [('t', 'i8'), ('x', 'i2'), ('y', 'i2'), ('p', '?')])
events['t'] = time
events['x'] = (time / 50_000 * 24 + random.normal(4, 1, count)).clip(0, 31)
events['y'] = random.integers(8, 24, count)
events['p'] = random.random(count) < 0.5
np.save(folder / 'bar.npy', events)

spec = FrameSpec(time_steps=5, window_us=10_000)
frames = frames_of_file(folder / 'bar.npy', spec, sensor=(32, 32))
print(frames.shape, frames.dtype)  # [time, height, width, polarity]
figure, axes = plt.subplots(1, 5, figsize=(8, 1.8))
for ax, frame in zip(axes, frames):
  ax.imshow(frame.sum(-1), cmap='magma')
  ax.axis('off')

# %% [markdown]
# A folder of recordings trains like one of images: `python train.py
# --config=folder:recordings --config.data.dir=DIR --config.data.sensor=32x32`
# (height x width). By default each recording is divided into equal spans. To
# classify while a recording arrives, as the next tutorial does, train on
# windows of fixed length: add `--config.data.binning=window
# --config.data.window_ms=10.0`.
# [Data](../data.html) has all formats and options.
