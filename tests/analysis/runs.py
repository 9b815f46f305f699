"""Directories of runs for tests, with a checkpoint but without the training."""

import json

from mlf_jax.training import configured_data, workdir
from mlf_jax.training.checkpoint import CheckpointStore
from tests.training import tiny

# Not a multiple of the batch that evaluates.
SAMPLES = 10


def untrained(directory, shape, model='spiking_resnet', **changes):
  """Writes a run that was stopped early; returns the data set."""
  dataset = tiny.dataset(shape, SAMPLES)
  name = 'frame_arrays' if len(shape) == 4 else 'arrays'
  config = tiny.config(name, model, eval_batch_size=4, **changes)
  config = configured_data.with_digest(config, dataset)
  with workdir.claimed_workdir(directory, config):
    pass
  state = tiny.built(config, shape).state
  with CheckpointStore(directory / 'checkpoints') as store:
    store.save(3, state, {'test/accuracy': 0.25})
  lines = [{'step': 2, 'train/loss': 2.0, 'train/accuracy': 0.1}]
  lines += [{'step': 3, 'test/loss': 1.9, 'test/accuracy': 0.25}]
  text = '\n'.join([*map(json.dumps, lines), '{"step": 4, "tra'])
  (directory / 'metrics.jsonl').write_text(text)
  return dataset
