"""Trains a spiking network: `python train.py --help`."""

import sys

from mlf_jax.cli import main

if __name__ == '__main__':
  sys.exit(main(['train', *sys.argv[1:]]))
