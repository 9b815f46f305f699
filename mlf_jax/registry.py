"""Parts that are chosen by name: units, blocks, losses, data sets, ..."""

import collections
from collections.abc import Callable
from typing import Generic, TypeVar

from mlf_jax.errors import UserError, unknown

Part = TypeVar('Part')


class Registry(collections.UserDict, Generic[Part]):
  """Maps names to the parts of one kind; every mistake is a one-line error.

      LOSSES['squared'] = Loss(squared_error)

      @UNITS.register('leaky')
      class Leaky(SpikingUnit): ...

  A name of one's own that is registered again stands for the later part, so
  that a configuration file that registers a part may be loaded twice.
  """

  def __init__(self, kind: str, check: Callable[[Part], str | None]):
    """Makes an empty registry.

    Args:
      kind: what messages call its parts, such as 'loss'.
      check: returns what is wrong with a part, None if nothing is.
    """
    super().__init__()
    self._kind = kind
    self._check = check
    self._sealed: frozenset[str] = frozenset()

  def register(self, name: str) -> Callable[[Part], Part]:
    """Returns a decorator that adds a part under `name`."""
    self._require_name(name)

    def add(part):
      self[name] = part
      return part

    return add

  def seal(self) -> None:
    """Protects the names so far, the library's own, from being replaced."""
    self._sealed = frozenset(self)

  def __setitem__(self, name: str, part: Part) -> None:
    """Adds a part; raises `UserError` if it or the name cannot be right."""
    self._require_name(name)
    if name in self._sealed:
      raise UserError(
        f'{self._kind} {name!r} is part of mlf_jax; choose another name'
      )
    if problem := self._check(part):
      raise UserError(f'{self._kind} {name!r}: {problem}')
    super().__setitem__(name, part)

  def get(self, name: str, default: object = None) -> object:
    """Returns a part, or `default` if the name is unknown."""
    return self.data.get(name, default)

  def _require_name(self, name):
    if not isinstance(name, str):
      raise UserError(
        f"a {self._kind} is registered with a name: @register('name')"
      )

  def __missing__(self, name: str) -> Part:
    """Raises `UserError` with the names that are known."""
    raise unknown(self._kind, name, self)


def instance_of(cls: type) -> Callable[[object], str | None]:
  """Check for a registry whose parts are instances of a class."""

  def check(part):
    if isinstance(part, cls):
      return None
    return f'it must be a {cls.__name__}(...), got {part!r}'

  return check


def subclass_of(base: type, *methods: str) -> Callable[[object], str | None]:
  """Check for a registry whose parts are classes based on `base`.

  Args:
    base: the base class.
    *methods: methods that a class has to have, besides the abstract ones of the
      base.
  """

  def check(part):
    if not (isinstance(part, type) and issubclass(part, base)):
      return f'it must be a class based on {base.__name__}, got {part!r}'
    missing = [m for m in methods if not any(m in vars(c) for c in part.mro())]
    missing += sorted(getattr(part, '__abstractmethods__', ()))
    if missing:
      return f'{part.__name__} has no method {missing[0]}'
    return None

  return check
