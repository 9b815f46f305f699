"""A training step and an evaluation, on one device or divided among processes.

`python -m tests.training.step_in_processes train FILE --distributed ...` saves
the numbers that the first process has.
"""

import sys

import jax
import numpy as np

from mlf_jax import data
from mlf_jax.training import processes, sharding
from tests import quick
from tests.training import tiny

BATCH = 16
# Not a multiple of the batch, so that the last one is filled up.
TEST_SAMPLES = 37


def numbers(residual, kind, parallel=None):
  """Loss, parameters after a step, running statistics, sums of an evaluation.

  Args:
    residual: the residual block.
    kind: 'digits' or 'frames'.
    parallel: devices; by default one device gets the whole batch.

  Returns:
    NumPy arrays in float64, by name.
  """
  config = tiny.config(
    batch_size=BATCH,
    model__dtype='float64',
    model__residual=residual,
    augment__crop_padding=1,
    optimizer__learning_rate=1.0,
    optimizer__momentum=0.0,
  )
  shape = (8, 8, 1) if kind == 'digits' else (2, 8, 8, 2)
  with jax.enable_x64(True):
    axis = None if parallel is None else sharding.AXIS
    built = tiny.built(config, shape, axis)
    splits = built.dataset.train, built.dataset.test
    if kind == 'digits':
      digits = data.load('digits')
      splits = digits.train, digits.test
    train, test = splits
    test = data.Split(test.images[:TEST_SAMPLES], test.labels[:TEST_SAMPLES])
    rows, state = slice(None), built.state
    if parallel is None:
      step, evaluate, send = (
        quick.jit(built.train_step),
        quick.jit(built.eval_step),
        lambda batch: batch,
      )
    else:
      step, evaluate = map(
        parallel.parallelize, (built.train_step, built.eval_step)
      )
      send, rows = parallel.shard_batch, parallel.rows(BATCH)
      state = parallel.replicate(state)
    batch = data.train_batch(train, BATCH, seed=0, step=1, rows=rows)
    new, metrics = step(state, send(batch))
    sums = [
      evaluate(new.eval_variables, send(batch))
      for batch in data.eval_batches(test, BATCH, rows)
    ]
    tree = {
      'state': new,
      'metrics': metrics,
      'evaluation': jax.tree.map(lambda *each: sum(each), *sums),
    }
    return {
      jax.tree_util.keystr(path): np.asarray(jax.device_get(leaf))
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def main():
  """Joins the processes and computes all cases that are asked for."""
  path, cases, *_ = sys.argv[1:]
  _, coordinator, count, number = (a.partition('=')[2] for a in sys.argv[3:])
  processes.initialize(coordinator, int(count), int(number))
  compilation = quick.of_the_library()
  next(compilation)
  parallel = sharding.DataParallel()
  results = {
    f'{residual} {kind} {name}': value
    for residual, kind in (case.split('-') for case in cases.split(','))
    for name, value in numbers(residual, kind, parallel).items()
  }
  if processes.is_first():
    np.savez(path, **results)


if __name__ == '__main__':
  main()
