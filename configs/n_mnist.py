"""The paper's DVS-Gesture network on N-MNIST, which the paper does not use.

Ten windows of 30 ms. The recipe is the paper's with fewer epochs, since an
epoch has fifty times as many samples.
"""

from mlf_jax.training import default_config


def get_config():
  config = default_config(data='n_mnist')
  config.batch_size = 64
  config.num_epochs = 30
  config.model.depth = 20
  config.model.widths = (16, 32, 64)
  config.schedule.step_epochs = 10
  return config
