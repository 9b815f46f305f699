"""Numbers on the command line, for `argparse`."""

import argparse
import math


def positive_int(text: str) -> int:
  """Parses a whole number above 0."""
  if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 10**9:
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)


def positive_float(text: str) -> float:
  """Parses a finite number above 0."""
  if not (value := not_negative_float(text)):
    raise argparse.ArgumentTypeError(f'{text!r} is no number above 0')
  return value


def not_negative_float(text: str) -> float:
  """Parses a finite number from 0 on."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 on')
  return value
