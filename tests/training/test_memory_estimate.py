"""Memory of a training step, estimated from smaller batches."""

import numpy as np
import pytest

from mlf_jax.errors import UserError
from mlf_jax.training import default_config, memory_estimate
from mlf_jax.training.memory_estimate import MemoryEstimate
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')


def test_memory_is_estimated_from_smaller_batches():
  config = tiny.config(
    model__widths=(8, 8, 8), model__time_steps=1, unit__thresholds=(0.6,)
  )
  estimated = memory_estimate.estimate(config, 32)
  measured = memory_estimate.measure(config, 32)
  np.testing.assert_allclose(estimated.bytes(32), measured, rtol=0.15)
  assert estimated.largest_batch(estimated.bytes(32) + 1) == 32
  assert estimated.largest_batch(0) == 0
  largest = memory_estimate.largest_batch(config, measured, 32, estimated)
  assert abs(largest - 32) <= 0.15 * 32


@pytest.mark.parametrize(
  ('fixed', 'first', 'later', 'expected'),
  [
    # One estimate is enough, or another one is made near what fits.
    (0, 1000.0, None, 40),
    (0, 10.0, 20.0, 2000),
    # Less fits than was asked for; nothing does; nearly everything does.
    (0, 4000.0, 4000.0, 10),
    (39000, 500.0, None, 0),
    (0, 2**-10, 2**-10, 40000 * 2**10),
  ],
)
def test_largest_batch_is_estimated_near_what_fits(
  fixed, first, later, expected
):
  sizes = []

  def estimate(config, size):
    sizes.append(size)
    return MemoryEstimate(0, later)

  estimated = MemoryEstimate(fixed, first)
  found = memory_estimate.largest_batch(None, 40000, 32, estimated, estimate)
  assert found == expected
  assert bool(sizes) == (later is not None)
  if sizes:
    assert sizes[-1] == 2**20 or sizes[-1] // 2 <= expected <= 2 * sizes[-1]


def test_search_ends_though_estimates_contradict_each_other():
  swings = lambda config, size: MemoryEstimate(0, 1e3 if size > 20 else 1)
  first = MemoryEstimate(0, 1e3)
  assert memory_estimate.largest_batch(None, 10_000, 64, first, swings) >= 4


def test_an_estimate_needs_smaller_batches():
  with pytest.raises(UserError, match='at least 4 samples per device, got 3'):
    memory_estimate.estimate(default_config(), 3)
