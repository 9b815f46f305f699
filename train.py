"""Trains a spiking network: `python train.py --help`."""

import sys

from mlf_jax.cli import train_main

if __name__ == '__main__':
  sys.exit(train_main(sys.argv))
