"""The paper's DVS-Gesture network on N-MNIST, which the paper does not use.

Ten windows of 30 ms; the recipe is the paper's, with fewer epochs, since one
has fifty times as many samples.
"""

from mlf_jax.training import config as config_lib


def get_config():
  config = config_lib.default(data_name='n_mnist')
  config.batch_size = 64
  config.num_epochs = 30
  config.model.depth = 20
  config.model.widths = (16, 32, 64)
  config.schedule.step_epochs = 10
  return config
