"""Errors that a user's mistake becomes: one line, no traceback."""

import difflib
import numbers
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake of the person at the keyboard.

  The message is one line that says what is wrong, where, and what would be
  right. The command line prints it and exits with a code that is not 0.
  """


def unknown(what: str, value: object, known: Iterable[str]) -> UserError:
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
  return UserError(
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
