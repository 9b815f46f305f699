"""Spiking residual networks and spiking VGG-16 as Flax modules."""

from mlf_jax.models.blocks import BLOCKS, ResidualBlock
from mlf_jax.models.resnet import (
  STEMS,
  SpikingResNet,
  ds_resnet14_cifar10_dvs,
  ds_resnet20_cifar10,
  ds_resnet20_dvs_gesture,
  resnet18,
  resnet19,
  stage_sizes_for_depth,
)
from mlf_jax.models.vgg import SpikingVGG, spiking_vgg16

__all__ = [
  'BLOCKS',
  'STEMS',
  'ResidualBlock',
  'SpikingResNet',
  'SpikingVGG',
  'ds_resnet14_cifar10_dvs',
  'ds_resnet20_cifar10',
  'ds_resnet20_dvs_gesture',
  'resnet18',
  'resnet19',
  'spiking_vgg16',
  'stage_sizes_for_depth',
]
