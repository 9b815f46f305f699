"""The paper's CIFAR10-DVS network and recipe, on the split 'tail'."""

from mlf_jax.training import default_config


def get_config():
  config = default_config(data='cifar10_dvs')
  config.batch_size = 32
  config.num_epochs = 100
  config.model.depth = 14
  config.model.widths = (32, 64, 128)
  config.optimizer.weight_decay = 1e-3
  config.eval_batch_size = 64
  return config
