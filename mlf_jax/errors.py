"""Errors that a user's mistake becomes: one line, no traceback."""

import difflib
import numbers
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np


class UserError(ValueError):
  """A mistake of the person at the keyboard.

  The message is one line that says what is wrong, where, and what would be
  right. The command line prints it and exits with a code that is not 0.
  """


class UnknownNameError(UserError):
  """A name that is not known, or not yet."""


def unknown(what: str, value: object, known: Iterable[str]) -> UnknownNameError:
  """Error for an unknown name, which suggests those that are close.

  Args:
    what: kind of thing that has the name.
    value: the name as it was given.
    known: the names that would be right.
  """
  known, text = list(known), str(value)
  near = [name for name in known if text and name.startswith(text)]
  near = near or difflib.get_close_matches(text, known, 2)
  hint = f' (did you mean {" or ".join(map(repr, near))}?)' if near else ''
  return UnknownNameError(
    f'{what} {value!r} is unknown{hint}; known: '
    + ', '.join(name or "''" for name in known)
  )


def require_positive_integers(**sizes) -> None:
  """Raises `UserError` naming the first size that is not a positive integer.

  Args:
    **sizes: names to numbers, or to tuples or lists of numbers.
  """
  for name, value in sizes.items():
    values = value if isinstance(value, (tuple, list)) else (value,)
    if not values or any(
      isinstance(v, bool) or not isinstance(v, numbers.Integral) or v < 1
      for v in values
    ):
      raise UserError(f'{name} must be positive whole numbers, got {value!r}')


def require_floating(**arrays) -> None:
  """Raises `UserError` naming the first array that is not floating-point."""
  for name, array in arrays.items():
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise UserError(
        f'{name} must be floating-point numbers, got {array.dtype}: convert '
        f"them, {name}.astype('float32')"
      )


def require_axes(axes: str, **arrays) -> None:
  """Raises `UserError` naming the first array with other axes.

  Args:
    axes: names of the axes, separated by spaces; '*name' may be there or not.
    **arrays: names to arrays.
  """
  names = axes.split()
  most, least = len(names), sum(not name.startswith('*') for name in names)
  for name, array in arrays.items():
    if not least <= jnp.ndim(array) <= most:
      raise UserError(
        f'{name} must have the axes [{", ".join(names)}], got shape '
        f'{jnp.shape(array)}'
      )


def require_finite(name: str, samples, first: int = 0) -> None:
  """Raises `UserError` naming the first sample with NaN or infinity.

  A membrane potential that is NaN exceeds no threshold: without this check such
  a sample is one without spikes.

  Args:
    name: name of the samples in the message.
    samples: concrete numbers, [sample, ...].
    first: number of the first of them.
  """
  if not jnp.issubdtype(samples.dtype, jnp.floating):
    return
  wrong = np.argwhere(~np.isfinite(np.asarray(samples)))
  if wrong.size:
    sample, *place = wrong[0].tolist()
    raise UserError(
      f'{name}: sample {first + sample} holds NaN or infinity, first at {place}'
    )


def require_bound_axis(axis_name: str | None) -> None:
  """Raises `UserError` outside of a map over an axis of this name."""
  if axis_name is not None:
    try:
      jax.lax.axis_size(axis_name)
    except NameError:
      raise UserError(
        f'axis_name is {axis_name!r}, but nothing maps over an axis of that '
        'name here: call the network inside jax.shard_map or jax.pmap over it, '
        'or build it without axis_name'
      ) from None
