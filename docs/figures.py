"""Makes the pictures of the README: `python docs/figures.py`."""

import pathlib

from mlf_jax.analysis import plots

FOLDER = pathlib.Path(__file__).parent


def main():
  """Writes the pictures beside this file."""
  current = [0.4, 0.7, 1.2, 0.3, 2.0, 2.8, 0.9, 0.2, 1.5, 3.4, 1.0, 0.5]
  figure = plots.mlf_unit(current)
  figure.savefig(FOLDER / 'mlf_unit.png', dpi=110)


if __name__ == '__main__':
  main()
