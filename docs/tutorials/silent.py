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

import mlf_jax
from mlf_jax import activity, layers, training
from mlf_jax.analysis import inspect_run, plots


def short(**fields):
  config = training.default_config(data='digits')
  config = training.with_fields(
    config,
    {
      'model.depth': 8,
      'model.widths': (8, 16, 32),
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
# Nothing fires in any layer, so it is not one layer's fault. Weight decay acts
# on the gain of each normalisation, which scales the current of the units (it
# starts at 1). How large is it, and where do the potentials lie?

# %%
params = mlf_jax.load(spoilt.workdir).variables['params']
for normalisation in (
  params['bn1'],
  params['layer2_0']['bn1'],
  params['layer3_0']['bn2'],
):
  print(f'gain {abs(normalisation["scale"]).mean():.4f}')

unit = layers.MLF()
plots.membrane_histogram(
  spoilt.activity['layer2_0/units1'].membranes,
  activity.membrane_edges(unit),
  unit.thresholds,
  unit.width,
)

# %% [markdown]
# The gain has been decayed away: potentials lie in a narrow peak at 0, far
# below the first threshold (dashed) and its window (the band).

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
# `activity.measure` counts the same for any Flax network that holds its units
# in `layers.SpikingUnits`. Before a training, `train=True` normalises with the
# statistics of the batch.

# %%
import flax.linen as nn
import jax.numpy as jnp


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):  # [time, batch, features]
    x = layers.TDBatchNorm()(nn.Dense(64)(x), not train)
    x = layers.SpikingUnits(layers.LIF(), 4, jnp.float32)(x)
    return nn.Dense(10)(x).mean(0)


model = Net()
x = jax.random.normal(jax.random.key(0), (4, 32, 100))
variables = model.init(jax.random.key(1), x)
for path, layer in activity.measure(model, variables, x, train=True).items():
  print(f'{path:18} dormant {layer.dormant_share:.1%}')

# %% [markdown]
# [A silent, a stuck, a slow network](../silent.html) has more cases.
