"""The error a user's mistake becomes: one line, no traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake of the person at the keyboard.

  The message is one line that says what is wrong, where, and what would be
  right. The command line prints it and exits with a code that is not 0.
  """


def unknown(what: str, value: object, known: Iterable[str]) -> UserError:
  """The error for a name that is none of the known ones, with the close ones.

  Args:
    what: what the name is of.
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
