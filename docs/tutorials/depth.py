# %% [markdown]
# # Depth: where the plain network gives up
#
# In the plain spiking ResNet units fire *after* the shortcut is added: gradient
# has to pass their windows in every block. In DS-ResNet they fire *before*, so
# that the shortcut is an identity. How much gradient reaches the first layer?
#
# [This page as a notebook](depth.ipynb)

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from mlf_jax import activity, data
from mlf_jax.models import SpikingResNet, stage_sizes_for_depth
from mlf_jax.training.losses import cross_entropy

digits = data.load('digits')
images = digits.normalize(digits.train.images[:64], 'float32')
labels = jax.nn.one_hot(digits.train.labels[:64], 10)


# %% [markdown]
# ## Gradient by depth, before training
#
# `scan_blocks` runs equal blocks in one loop, so that deep networks compile
# quickly; the numbers are the same.


# %%
def gradient_norms(residual, depth):
  model = SpikingResNet(
    stage_sizes_for_depth(depth),
    widths=(8, 16, 32),
    num_classes=10,
    time_steps=2,
    residual=residual,
    scan_blocks=True,
  )
  # Code that runs once need not be the fastest.
  quick = {'xla_backend_optimization_level': 1}
  init = jax.jit(model.init, compiler_options=quick)
  variables = init(jax.random.key(0), images)

  def loss(params):
    logits, _ = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return cross_entropy(logits, labels).mean()

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  return activity.gradient_norms(gradient, activity.depth_order(model, images))


# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for ax, residual in zip(axes, ('ds', 'plain')):
  for depth in (8, 44):
    norms = gradient_norms(residual, depth)
    values = [
      float(norm)
      for path, norm in norms.items()
      if path.endswith(('conv1', 'conv2'))
    ]
    place = np.linspace(0, 1, len(values))
    ax.semilogy(place, values, 'o-', ms=3, label=f'{depth} layers')
    ratio = activity.last_to_first({p: float(n) for p, n in norms.items()})
    print(f'{residual:5} {depth:3} layers: last / first {ratio:.3g}')
  ax.set(title=residual, xlabel='depth, first to last layer')
axes[0].set_ylabel('norm of the gradient')
axes[0].legend()

# %% [markdown]
# ## With training
#
# `python -m mlf_jax study depth` trains both at several depths and seeds, and
# writes a table; [Results](../results.html) shows what came out.
