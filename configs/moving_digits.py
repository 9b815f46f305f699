"""A small spiking DS-ResNet on moving digits: real images, simulated events."""

from mlf_jax.training import default_config


def get_config():
  config = default_config(data='moving_digits')
  config.batch_size = 64
  config.num_epochs = 15
  config.model.depth = 8
  config.model.widths = (16, 32, 64)
  # With so few steps AdamW gets further than the method's SGD.
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 0.01
  config.optimizer.weight_decay = 0.01
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  config.log_every = 22
  config.eval_every_epochs = 5.0
  return config
