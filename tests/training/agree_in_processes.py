"""Prints what the functions of `processes` return in one of two processes."""

import sys

import jax

from mlf_jax.errors import UserError
from mlf_jax.training import processes


def _said(function, *arguments):
  try:
    return function(*arguments)
  except UserError as error:
    return error


def _fail_in(process):
  if jax.process_index() == process:
    raise UserError('no such file')
  return f'{jax.process_index()} is fine'


def main():
  """Joins the processes and calls the functions in turn."""
  _, coordinator, count, number = (a.partition('=')[2] for a in sys.argv[1:])
  processes.initialize(coordinator, int(count), int(number))
  number = jax.process_index()
  settings = {'seed': number} | ({} if number else {'--workdir': 'a'})
  print(_said(processes.on_first, lambda: f'value of {number}'))
  print(_said(processes.on_first, lambda: _fail_in(0)))
  print(_said(processes.on_all, lambda: _fail_in(2)))
  print(_said(processes.on_all, lambda: _fail_in(1)))
  print(_said(processes.require_same, settings))


if __name__ == '__main__':
  main()
