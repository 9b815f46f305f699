"""A setting declared once: name, default, range or choices, explanation."""

import dataclasses
import math
from collections.abc import Collection

from mlf_jax.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class Field:
  """One setting of a configuration.

  Validation, `--help` and the documentation are made from it.

  Attributes:
    name: name within its section.
    default: default; its type is the type of the setting.
    help: explanation in one line, with the unit.
    choices: values it may have, looked up when the setting is checked, so that
      a registry's later entries count; None for any.
    low: smallest value.
    high: largest value.
    above: value it must exceed.
    below: value it must stay below.
  """

  name: str
  default: object
  help: str
  choices: Collection | None = None
  low: float | None = None
  high: float | None = None
  above: float | None = None
  below: float | None = None

  @property
  def range(self) -> str:
    """The allowed values in words, '' if any value of the type is allowed."""
    if self.choices is not None:
      return ', '.join(name or "''" for name in self.choices)
    bounds = (
      ('at least {}', self.low),
      ('above {}', self.above),
      ('at most {}', self.high),
      ('below {}', self.below),
    )
    return ' and '.join(
      text.format(bound) for text, bound in bounds if bound is not None
    )

  def check(self, value: object, section: str = 'config') -> None:
    """Checks a value.

    Args:
      value: the value; each entry is checked if it is a tuple.
      section: what messages put in front of the name.

    Raises:
      UserError: the value is outside the range or not finite.
    """
    name = f'{section}.{self.name}'
    if self.choices is not None:
      if value not in self.choices:
        raise unknown(name, value, self.choices)
      return
    for number in value if isinstance(value, tuple) else (value,):
      if isinstance(number, str):
        continue
      if not math.isfinite(number):
        raise UserError(f'{name} must be finite, got {value}')
      if isinstance(number, int) and abs(number) >= 2**31:
        raise UserError(f'{name} must be below 2**31, got {value}')
      if (
        (self.low is not None and number < self.low)
        or (self.above is not None and number <= self.above)
        or (self.high is not None and number > self.high)
        or (self.below is not None and number >= self.below)
      ):
        raise UserError(f'{name} must be {self.range}, got {value}')


def fields_of(cls: type) -> tuple[Field, ...]:
  """Fields of a dataclass, whose entries may carry `metadata={'help': ...}`.

  The metadata may hold any other attribute of `Field` too, such as `low`.
  """
  return tuple(
    Field(field.name, field.default, **{'help': '', **field.metadata})
    for field in dataclasses.fields(cls)
  )
