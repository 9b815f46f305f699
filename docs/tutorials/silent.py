# %% [markdown]
# # Looking inside: why is my network silent?
#
# A network whose units never fire, or whose membrane potentials miss every
# window, does not learn. We spoil one, find out why, and mend it.
#
# [This page as a notebook](silent.ipynb)

# %%
import tempfile

import jax
import matplotlib.pyplot as plt

from mlf_jax import activity, data, training
from mlf_jax.analysis import inspect_run


def short(**fields):
  config = training.default_config(data='digits')
  config = training.with_fields(
    config,
    {
      'model.depth': 8,
      'model.widths': (8, 16, 32),
      'augment.flip': False,
      'augment.crop_padding': 1,
      'num_epochs': 12,
      'eval_every_epochs': 6.0,
      'log_every': 66,
      'schedule.name': 'cosine',
      'model.time_steps': 2,
      **fields,
    },
  )
  workdir = tempfile.mkdtemp()
  training.train(config, workdir=workdir)
  return inspect_run(workdir)


# %% [markdown]
# ## A weight decay a hundred times too high

# %%
spoilt = short(**{'optimizer.weight_decay': 0.05})

# %% [markdown]
# The loss stays at log(10) = 2.3026: the network says the same for each image.
# How often do units fire, and how many are dormant: no membrane potential lies
# in a surrogate window? (A longer training would have warned: it looks every
# `config.log_activity_every` steps.)

# %%
for path, layer in spoilt.activity.items():
  print(
    f'{path:18} rate {layer.firing_rate:.4f}  dormant {layer.dormant_share:.1%}'
  )

# %% [markdown]
# All layers at once, so it is not one layer's fault. The gain of the
# normalisation has been decayed away: potentials lie in a narrow peak at 0, far
# below the first threshold.

# %% [markdown]
# ## With the weight decay of the recipe

# %%
mended = short()

# %%
figure, ax = plt.subplots(figsize=(7, 3))
for run, label in ((spoilt, 'spoilt'), (mended, 'mended')):
  shares = [layer.dormant_share for layer in run.activity.values()]
  ax.plot(shares, 'o-', label=f'{label}: test accuracy {run.accuracy:.3f}')
ax.set_xticks(range(len(mended.activity)), mended.activity, rotation=60)
ax.set(ylabel='dormant share', ylim=(0, 1))
ax.legend()

# %% [markdown]
# About half of all (unit, timestep) pairs are dormant in a network that learns
# well. `python -m mlf_jax analyse --workdir A --compare B` puts all of this,
# and more, on one page.
#
# ## In a network of your own
#
# `activity.measure` counts the same for any Flax network with
# `layers.SpikingUnits` inside.

# %%
from mlf_jax.models import SpikingResNet

model = SpikingResNet((1, 1), (4, 8), num_classes=10, time_steps=4)
images = data.load('digits').normalize(
  data.load('digits').test.images[:64], 'float32'
)
variables = model.init(jax.random.key(0), images)
for path, layer in activity.measure(model, variables, images).items():
  print(f'{path:18} dormant {layer.dormant_share:.1%}')

# %% [markdown]
# [A silent, a stuck, a slow network](../silent.html) has more cases.
