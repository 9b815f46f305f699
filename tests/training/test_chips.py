"""Time of all-reduces on chips and links of stated speeds."""

import itertools

import pytest

from mlf_jax.training.chips import CHIPS, Chip, Switch, Torus


@pytest.mark.parametrize(
  ('axes', 'ring_length', 'shape', 'links'),
  [
    (2, 16, (2, 4), 2),
    (2, 16, (8, 16), 3),
    (2, 16, (16, 16), 4),
    (3, 4, (1, 1, 2), 1),
    (3, 4, (2, 4, 4), 5),
    (3, 4, (8, 8, 8), 6),
  ],
)
def test_parts_cross_a_torus_and_sums_come_back(
  axes, ring_length, shape, links
):
  """As many hops as the two chips that are farthest apart need, twice."""

  def hops(position, length):
    back = length - position if length % ring_length == 0 else length
    return min(position, back)

  farthest = max(
    sum(map(hops, chip, shape))
    for chip in itertools.product(*map(range, shape))
  )
  num_chips = len([*itertools.product(*map(range, shape))])
  torus = Torus(4096, 10.0, 1.0, axes, ring_length)
  assert torus.all_reduce_path(num_chips) == (10.0 * links, 2 * farthest)


def test_boxes_reduce_inside_and_then_between_each_other():
  chip = Chip({}, 1.0, Switch(8, 100.0, 0.5), 10.0, 3.0, start=7.0)
  inside = 2 * 7 / 8 * 800 / 100
  seconds = chip.all_reduce_seconds
  assert seconds(1, 2, 800) == 0
  assert seconds(2, 2, 800) == 800 / 100 + 2 * (7 + 2 * 0.5)
  assert seconds(8, 2, 800) == inside + 2 * (7 + 14 * 0.5)
  # Each of the 8 chips sends an eighth to its partners in the other boxes.
  between = 2 * 3 / 4 * 100 / 10
  expected = inside + between + 2 * (7 + 14 * 0.5 + 2 * 2 * 3)
  assert seconds(32, 2, 800) == pytest.approx(expected)


@pytest.mark.parametrize('name', CHIPS)
def test_an_empty_all_reduce_takes_longer_on_more_chips(name):
  """Boxes, hosts, cubes, slices and several of them."""
  sizes = (1, 8, 64, 256, 512, 4096, 8192, 65536)
  times = [CHIPS[name].all_reduce_seconds(n, 1, 0) for n in sizes]
  assert times == sorted({*times})
  assert times[0] == 0
