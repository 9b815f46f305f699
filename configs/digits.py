"""A small spiking DS-ResNet on the 1,797 digits inside scikit-learn."""

from mlf_jax.training import default_config


def get_config():
  config = default_config(data='digits')
  config.batch_size = 64
  config.num_epochs = 30
  config.augment.crop_padding = 1
  config.model.depth = 8
  config.model.widths = (16, 32, 64)
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  config.log_every = 22
  config.eval_every_epochs = 5.0
  return config
