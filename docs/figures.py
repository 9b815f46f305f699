"""Makes the pictures of the README: `python docs/figures.py`.

With `--workdir DIR`, that of a run of `configs/moving_digits.py`, the picture
of a recording shows the trained network instead of one that was never trained.
"""

import argparse
import pathlib
import runpy

from mlf_jax.analysis import event_plots, plots
from mlf_jax.data import moving_digits
from mlf_jax.training import config as config_lib
from mlf_jax.training import evaluation, workdir
from mlf_jax.training import run as run_lib

FOLDER = pathlib.Path(__file__).parent
# Test samples; the first one is shown.
BATCH = 64


def main():
  """Writes the pictures beside this file."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--workdir', type=pathlib.Path)
  arguments = parser.parse_args()
  figure = plots.mlf_unit(
    [0.4, 0.7, 1.2, 0.3, 2.0, 2.8, 0.9, 0.2, 1.5, 3.4, 1.0, 0.5]
  )
  figure.savefig(FOLDER / 'mlf_unit.png', dpi=110)
  figure = recording(arguments.workdir)
  figure.savefig(FOLDER / 'events.png', dpi=110)


def recording(directory: pathlib.Path | None):
  """A moving digit, its frames and the spikes of the first layer."""
  if directory:
    config = config_lib.from_json(workdir.read_json(directory / 'config.json'))
  else:
    config = runpy.run_path(FOLDER.parent / 'configs' / 'moving_digits.py')[
      'get_config'
    ]()
  run = run_lib.load(config)
  if directory:
    _, state = evaluation.restore(directory, run)
  else:
    state = run_lib.init_state(run)
  frames = run.test_set.images[:BATCH]
  model = config_lib.make_model(config, run.test_set.num_classes, None)
  spikes = event_plots.first_spikes(
    model, state.eval_variables, frames, train=directory is None
  )
  events, _ = moving_digits.recordings('test')
  return event_plots.recording(
    events[0],
    run_lib.frames_of(config),
    spikes[0],
    num_levels=len(config.model.thresholds),
    layer='first layer, ' + ('trained' if directory else 'not trained'),
  )


if __name__ == '__main__':
  main()
