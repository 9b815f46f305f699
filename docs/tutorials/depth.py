# %% [markdown]
# # Depth: where does the plain network give up?
#
# In the plain spiking ResNet units fire *after* the shortcut is added: gradient
# has to pass their windows in every block. In DS-ResNet they fire *before*, so
# that the shortcut is an identity. How much gradient reaches the first layer?
#
# [This page as a notebook](depth.ipynb)

# %%
import jax
import matplotlib.pyplot as plt

from mlf_jax import activity, data
from mlf_jax.models import SpikingResNet, stage_sizes_for_depth
from mlf_jax.training.losses import cross_entropy

digits = data.load('digits')
images = digits.normalize(digits.train.images[:64], 'float32')
labels = jax.nn.one_hot(digits.train.labels[:64], 10)


# %% [markdown]
# ## Gradient in 44 layers, before training
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
for residual in ('ds', 'plain'):
  norms = gradient_norms(residual, depth=44)
  ratio = activity.last_to_first({p: float(n) for p, n in norms.items()})
  print(f'{residual:5} last layer / first layer {ratio:.3g}')
  values = [
    float(norm)
    for path, norm in norms.items()
    if path.endswith(('conv1', 'conv2'))
  ]
  plt.semilogy(values, 'o-', ms=3, label=residual)
plt.xlabel('layer, first to last')
plt.ylabel('norm of the gradient')
plt.legend()

# %% [markdown]
# Before training, gradient reaches the first layer in both networks, because
# each normalisation brings the current back to the same scale; in the plain one
# it even grows on the way back. So this look does not tell which one trains.
#
# ## With training
#
# Trained on digits for 30 epochs, one seed, with 20 and 110 layers: DS-ResNet
# comes to 0.978 and 0.978 on the test images, the plain network to 0.972 and
# 0.084, which is chance. With 20 layers both learn; with 110 layers, only the
# one whose shortcuts are identities.
#
# ```
# python -m mlf_jax study depth:20,110
# ```
#
# trains these four in ten to twenty minutes and writes a table of accuracies,
# dormant shares and gradient ratios. [Results](../results.html) has more depths
# and seeds, [Studies and recipes](../studies.html) explains the command.
