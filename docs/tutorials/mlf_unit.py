# %% [markdown]
# # The MLF unit by hand
#
# A multi-level firing (MLF) unit is K leaky integrate-and-fire neurons that
# share an input and have a threshold each. Its output is how many of them fire.
# We run one step by step, look at where gradient flows, and compare it with a
# single neuron.
#
# [This page as a notebook](mlf_unit.ipynb)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from mlf_jax import mlf, neuron

params = neuron.MLFParams(thresholds=(0.6, 1.6, 2.6), decay=0.25)

# %% [markdown]
# ## One timestep
#
# Every level k keeps a membrane potential: `u_k = decay * u_k * (1 - o_k) + x`,
# where o_k says whether the level fired at the timestep before; it fires where
# u_k exceeds its threshold, and the output is the sum. `step` is this and
# nothing else; every faster path of the library is tested to equal it.

# %%
state = neuron.init_state(params, shape=())
for x in [0.5, 0.5, 1.2, 3.0, 0.0]:
  state, output = neuron.step(params, state, jnp.float32(x))
  print(f'x = {x}   u = {state.membrane_potential}   output {output}')

# %% [markdown]
# ## A whole recording
#
# `run` takes all timesteps at once, with any shape behind the time axis. A
# recording that is fed in pieces, with the state carried, gives the same.

# %%
x = jax.random.uniform(jax.random.key(0), (6, 1000), maxval=3.0)
final, spikes = neuron.run(params, x)
middle, first_half = neuron.run(params, x[:3])
final_of_pieces, second_half = neuron.run(params, x[3:], middle)
same = jnp.array_equal(spikes, jnp.concatenate([first_half, second_half]))
print('in pieces, the same:', bool(same))

# %% [markdown]
# ## Where gradient flows
#
# A spike has no derivative, so a window around each threshold stands in for it,
# `width` wide (1 by default). Thresholds one width apart tile a wide range. A
# single level leaves everything outside its one window without gradient: such a
# unit is *dormant*.


# %%
def levels_fired(current, thresholds):
  return mlf(current[None], thresholds=thresholds)[0]


current = jnp.linspace(-1.0, 4.0, 500)
figure, axes = plt.subplots(2, 1, sharex=True, figsize=(7, 4))
for thresholds in [(0.6,), (0.6, 1.6, 2.6)]:
  gradient = jax.vmap(jax.grad(lambda c: levels_fired(c[None], thresholds)[0]))(
    current
  )
  label = f'K = {len(thresholds)}'
  axes[0].plot(current, levels_fired(current, thresholds), label=label)
  axes[1].plot(current, gradient, label=label)
axes[0].set(ylabel='levels that fire')
axes[1].set(ylabel='derivative', xlabel='input current')
axes[0].legend()

# %% [markdown]
# How many units of a random layer get no gradient?

# %%
random_current = 1.5 * jax.random.normal(jax.random.key(1), (100_000,))
for thresholds in [(0.6,), (0.6, 1.6, 2.6)]:
  gradient = jax.grad(lambda c: levels_fired(c, thresholds).sum())(
    random_current
  )
  print(f'K = {len(thresholds)}: {np.mean(gradient == 0):.1%} are dormant')

# %% [markdown]
# ## In a model of your own
#
# `mlf` is a function like `relu`, with time first. Thresholds and decay may be
# learned: they are ordinary arguments that gradient flows to. Nothing keeps
# them in their ranges then; `layers.LearnedMLF` does.


# %%
def loss(weights, decay, x):
  return mlf(x @ weights, decay=decay).mean()


x = jax.random.normal(jax.random.key(2), (4, 8, 16))  # [time, batch, features]
weights = jax.random.normal(jax.random.key(3), (16, 32)) / 4
of_weights, of_decay = jax.grad(loss, argnums=(0, 1))(weights, 0.25, x)
print(of_weights.shape, of_decay)
