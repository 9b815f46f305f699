"""Some rows of an array that may be larger than the memory."""

import numpy as np
from jaxtyping import Int64, Shaped


class ChosenRows:
  """Rows of an array, copied only when they are asked for.

  NumPy's own indexing by row numbers copies all of them at once. A slice of
  rows is again not copied; any other index returns an array.
  """

  def __init__(
    self, array: Shaped[np.ndarray, 'n *row'], rows: Int64[np.ndarray, 'm']
  ):
    """Chooses `rows`, numbers of rows of `array`, in this order."""
    self._array = array
    self._rows = rows

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the chosen rows, [m, ...]."""
    return (len(self._rows), *self._array.shape[1:])

  @property
  def dtype(self) -> np.dtype:
    """Dtype of the array."""
    return self._array.dtype

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return self._array.ndim

  def __len__(self) -> int:
    """Returns the number of rows."""
    return len(self._rows)

  def __getitem__(self, index):
    """Indexes rows, and further axes, as NumPy does."""
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    if isinstance(first, slice):
      return ChosenRows(self._array[:, *rest], self._rows[first])
    if first is Ellipsis or first is None:
      return np.asarray(self)[index]
    rows = self._array[self._rows[first]]
    return rows[(slice(None),) * np.ndim(first) + tuple(rest)]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """Returns the rows as an array in memory."""
    del copy  # It always is one.
    return np.asarray(self._array[self._rows], dtype)
