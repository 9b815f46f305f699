"""The paper's DVS-Gesture network and recipe."""

from mlf_jax.training import default_config


def get_config():
  config = default_config(data='dvs_gesture')
  config.batch_size = 28
  config.num_epochs = 120
  config.model.depth = 20
  config.model.widths = (16, 32, 64)
  config.model.normalize_input = True
  config.eval_batch_size = 32
  return config
