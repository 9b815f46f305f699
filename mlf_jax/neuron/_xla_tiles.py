"""Tiles of neurons, in the layout in which loops over timesteps are fast."""

import jax
import jax.numpy as jnp

# Columns of a row that a loop over timesteps handles at a time.
_COLUMNS = 512


class Tiles:
  """Views arrays [time, ...] as [time, row, column] and cuts them into tiles.

  XLA vectorises a loop over timesteps along the columns, so there should be
  many: a row holds as many neighbouring pixels, with all their channels, as
  divide the number of neurons and fit into `_COLUMNS`. If only few fit, all
  neurons form one row.
  """

  def __init__(self, x, affine, tile):
    """Chooses the layout for an input `x` whose current is `affine(x)`.

    Args:
      x: [time, ..., channel].
      affine: coefficients per channel, or None.
      tile: neurons per tile; None for all.
    """
    num_neurons = x[0].size
    channels = 1 if affine is None else x.shape[-1]
    pixels = num_neurons // channels
    most = max(1, _COLUMNS // channels)
    columns = channels * max(n for n in range(1, most + 1) if pixels % n == 0)
    if columns < _COLUMNS // 8:
      columns = num_neurons
    self._shape = (num_neurons // columns, columns)
    # Axis along which tiles are cut.
    self._axis = 0 if columns < num_neurons else 1
    per_step = columns if columns < num_neurons else 1
    self.length = self._shape[self._axis]
    self._tile = self.length
    if tile is not None:
      self._tile = min(max(1, tile // per_step), self.length)
    self._affine = None
    if affine is not None:
      repeats = columns // channels
      self._affine = jax.tree.map(lambda a: jnp.tile(a, repeats), affine)

  def view(self, array):
    """Reshapes [n, ...] to [n, row, column]."""
    return array.reshape(array.shape[0], *self._shape)

  def tile_shape(self, size):
    """Shape [row, column] of a tile of `size` rows, or columns of one row."""
    return (size, self._shape[1]) if self._axis == 0 else (1, size)

  @property
  def largest_tile(self):
    """Shape [row, column] of every tile but the last."""
    return self.tile_shape(self._tile)

  def read(self, array, t, start, size):
    """Reads a tile of one timestep, [row, column]."""
    index = (t, start, 0) if self._axis == 0 else (t, 0, start)
    shape = (1, *self.tile_shape(size))
    return jax.lax.dynamic_slice(array, index, shape)[0]

  def write(self, array, tile, t, start):
    """Returns `array` with a tile of one timestep replaced."""
    index = (t, start, 0) if self._axis == 0 else (t, 0, start)
    return jax.lax.dynamic_update_slice(
      array, tile[None].astype(array.dtype), index
    )

  def current(self, x, start, size):
    """Returns the input current of a tile as a function of the timestep."""
    affine = self._affine
    if affine is None:
      return lambda t: self.read(x, t, start, size)
    if self._axis == 1:
      affine = jax.tree.map(
        lambda a: jax.lax.dynamic_slice(a, (start,), (size,)), affine
      )
    return lambda t: affine(self.read(x, t, start, size))

  def for_each_tile(self, body, carry):
    """Folds `body(start, size, carry)` over the tiles."""
    whole, rest = divmod(self.length, max(1, self._tile))
    carry = jax.lax.fori_loop(
      0, whole, lambda i, c: body(i * self._tile, self._tile, c), carry
    )
    return body(whole * self._tile, rest, carry) if rest else carry
