"""Chosen rows are indexed as an array is, and copied only then."""

import numpy as np
import pytest

from mlf_jax.data import ChosenRows

ARRAY = np.arange(10 * 3 * 2).reshape(10, 3, 2)
ROWS = np.array([7, 2, 2, 9, 0])


@pytest.mark.parametrize(
  'index',
  [
    2,
    -1,
    (3, 1),
    slice(1, 4),
    (slice(None), slice(0, 2)),
    (slice(None, None, 2), 1),
    np.array([4, 0, 0]),
    (np.array([4, 0]), slice(1, 3), 0),
    np.array([True, False, True, False, True]),
    ...,
    (..., 0),
    None,
    (),
  ],
)
def test_index_gives_what_it_gives_of_the_array(index):
  chosen = ChosenRows(ARRAY, ROWS)
  expected = ARRAY[ROWS][index]
  np.testing.assert_array_equal(chosen[index], expected)
  assert (chosen[index].shape, chosen[index].dtype) == (
    expected.shape,
    expected.dtype,
  )
  assert (chosen.shape, chosen.ndim, len(chosen)) == ((5, 3, 2), 3, 5)


def test_slice_is_not_copied():
  array = ARRAY.copy()
  part = ChosenRows(array, ROWS)[1:4, :, 1:]
  array += 1
  np.testing.assert_array_equal(part, ARRAY[ROWS][1:4, :, 1:] + 1)
