"""`python -m mlf_jax`."""

import sys

from mlf_jax.cli import main

if __name__ == '__main__':
  sys.exit(main())
