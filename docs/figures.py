"""Draws the pictures of the documents: `python docs/figures.py`.

With `--workdir DIR`, the directory of a run of `configs/moving_digits.py`, the
picture of a recording shows the trained network instead of an untrained one.
With `--digits DIR`, the directory of a run of `configs/digits.py`, two pictures
of its report are drawn too, which need a trained network.
"""

import argparse
import pathlib
import shutil

import jax
import numpy as np

from mlf_jax import analysis, training
from mlf_jax.analysis import event_plots, unit_plots
from mlf_jax.configs import moving_digits as configuration
from mlf_jax.data.events import moving_digits
from mlf_jax.training.config import build_model
from mlf_jax.training.configured_data import load_dataset, load_options

FOLDER = pathlib.Path(__file__).parent
# Test samples that are normalised together; the first one is shown.
BATCH = 64
# Pictures of a report that the documents show.
OF_REPORT = ('dormant.png', 'traces_busiest.png')


def main():
  """Writes the pictures beside this file."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  parser.add_argument('--digits', type=pathlib.Path)
  arguments = parser.parse_args()
  figure = unit_plots.mlf_unit(
    [0.4, 0.7, 1.2, 0.3, 2.0, 2.8, 0.9, 0.2, 1.5, 3.4, 1.0, 0.5]
  )
  figure.savefig(FOLDER / 'mlf_unit.png', dpi=110)
  figure = recording(arguments.workdir)
  figure.savefig(FOLDER / 'events.png', dpi=110)
  if arguments.digits:
    folder = analysis.report(arguments.digits).with_name('report')
    for name in OF_REPORT:
      shutil.copyfile(folder / name, FOLDER / name)


def recording(directory: pathlib.Path | None):
  """Draws a moving digit, its frames and the spikes of the first layer."""
  if directory:
    config, model, _, state = training.restore(directory)
  else:
    config = configuration.get_config()
    model = build_model(config, num_classes=10)
  frames = load_dataset(config).test.images[:BATCH]

  @jax.jit
  def first_spikes(key):
    trained = directory is not None
    variables = state.eval_variables if trained else model.init(key, frames[:1])
    return event_plots.first_spikes(model, variables, frames, train=not trained)

  spikes = np.asarray(first_spikes(jax.random.key(config.seed)))
  events, _ = moving_digits.recordings('test')
  return event_plots.recording(
    events[0],
    load_options(config).frames,
    spikes[0],
    num_levels=len(config.unit.thresholds),
    layer='first layer, ' + ('trained' if directory else 'not trained'),
  )


if __name__ == '__main__':
  main()
