"""The error a user's mistake becomes: one line, no traceback."""


class UserError(ValueError):
  """A mistake of the person at the keyboard.

  The message is one line that says what is wrong, where, and what would be
  right. The command line prints it and exits with a code that is not 0.
  """
