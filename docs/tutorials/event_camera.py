# %% [markdown]
# # From an event camera to a live decision
#
# A trained network that comes with the package classifies a recording while it
# arrives. The digits are real; the camera in front of them is simulated. The
# pixels of an event camera report each on its own when they become brighter or
# darker (the *polarity*); a recording is the list of these events.
#
# [This page as a notebook](event_camera.ipynb)

# %%
import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np

import mlf_jax
from mlf_jax.analysis.early_exit import exit_curve
from mlf_jax.data.events import moving_digits

net = mlf_jax.load('zoo:moving_digits')
recordings, labels = moving_digits.recordings('test')
recording, label = recordings[39], labels[39]
print(
  f'a {label}: {len(recording.t):,} events in {recording.t[-1] / 1000:.0f} ms'
)

# %% [markdown]
# ## From events to frames
#
# The network knows how its frames are made. Each counts the events of one
# window of time per pixel and polarity. Events of your own become a recording
# with `data.events.from_array(events, sensor_size=(height, width))` or
# `data.events.read_recording(path)`; their sensor must be of the size that the
# network was trained for.

# %%
spec = net.frames
frames = spec.frames(recording)
print(spec.time_steps, 'windows of', spec.window_us, 'us:', frames.shape)
figure, axes = plt.subplots(1, spec.time_steps, figsize=(9, 1.3))
for ax, frame in zip(axes, frames):
  ax.imshow(frame.sum(-1), cmap='magma')
  ax.axis('off')

# %% [markdown]
# ## Frame by frame
#
# When a window closes, its frame is fed; the potentials of the neurons are
# carried from one to the next, so nothing is computed twice. After the last
# frame the logits are those of the whole recording in one call.

# %%
window = dataclasses.replace(spec, time_steps=1)
stream, probabilities = net.stream(), []
for step in range(spec.time_steps):
  begin = recording.t[0] + step * spec.window_us
  arrived = recording.between(begin, begin + spec.window_us)
  logits = stream.feed(window.frames(arrived, origin=begin))
  (name,), (of_classes,) = net.decide(logits)  # A batch of one.
  probabilities.append(of_classes)
  print(f'{(step + 1) * spec.window_us / 1000:4.0f} ms: {name}')
print('as in one call:', bool((net(frames[None]) == logits).all()))

# %%
plt.plot(np.arange(1, spec.time_steps + 1), probabilities)
plt.xlabel('windows')
plt.ylabel('probability of each class')
plt.legend(net.class_names, ncols=2, fontsize='small')

# %% [markdown]
# ## Deciding early
#
# Most recordings are clear before they end. If each stops as soon as its class
# has at least a chosen probability, the confidence, accuracy can be traded for
# time. `every_timestep` asks for logits [time, batch, class]:

# %%
from mlf_jax import data

test = data.load('moving_digits').test
inputs = net.preprocessing.normalize(test.images[:200], 'float32')
logits = jax.jit(net.model.apply, static_argnames='every_timestep')(
  net.variables, inputs, every_timestep=True
)
for point in exit_curve(logits, test.labels[:200]):
  print(
    f'at {point.confidence:5g}: {point.accuracy:.3f} after '
    f'{point.mean_time_steps:.1f} windows'
  )
