"""The command line: `python -m mlf_jax COMMAND`, one file per command."""

import argparse
import signal
import sys
import warnings

from mlf_jax.cli import (
  analyse,
  evaluate,
  export,
  memory,
  predict,
  prepare,
  reference,
  scaling,
  study,
  train,
  zoo,
)
from mlf_jax.errors import UserError

_MISTAKE = 2


class _Parser(argparse.ArgumentParser):
  """A parser whose errors are those of the commands: one line."""

  def error(self, message):
    raise UserError(message)


def main(argv: list[str] | None = None) -> int:
  """Runs a command; a mistake is one line, a traceback is for bugs.

  Args:
    argv: arguments after the name of the program; those of the process by
      default.

  Returns:
    The exit code: 0, 2 after a mistake, 128 + signal after an interruption.
  """
  parser = _Parser(prog='python -m mlf_jax', allow_abbrev=False)
  commands = parser.add_subparsers(dest='command', required=True)
  for command in (
    train,
    evaluate,
    predict,
    export,
    reference,
    analyse,
    prepare,
    memory,
    scaling,
    study,
    zoo,
  ):
    command.add_command(commands)
  with warnings.catch_warnings():
    warnings.showwarning = _show_warning
    try:
      # Fields of a configuration are left over; `config_flags` parses them.
      arguments, fields = parser.parse_known_args(argv)
      if fields and not arguments.takes_fields:
        parser.error(f'unrecognized arguments: {" ".join(fields)}')
      arguments.fields = fields
      return arguments.command_function(arguments) or 0
    except UserError as error:
      print(f'error: {error}', file=sys.stderr)
      return _MISTAKE
    except KeyboardInterrupt:
      print('interrupted', file=sys.stderr)
      return 128 + signal.SIGINT


def _show_warning(message, category, filename, lineno, file=None, line=None):
  del category, filename, lineno, line
  print(f'warning: {message}', file=file or sys.stderr)
