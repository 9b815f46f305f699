"""Parts that are chosen by name: units, blocks, losses, data sets, ..."""

from collections.abc import Callable
from typing import TypeVar

from mlf_jax.errors import unknown

Part = TypeVar('Part')


class Registry(dict[str, Part]):
  """Maps names to the parts of one kind; an unknown name is a one-line error.

      LOSSES = Registry('loss')

      @LOSSES.register('hinge')
      def hinge(logits, labels): ...

  A name that is registered again stands for the later part, so that a
  configuration file that registers a part may be loaded twice.
  """

  def __init__(self, kind: str):
    """Makes an empty registry.

    Args:
      kind: what messages call its parts, such as 'loss'.
    """
    super().__init__()
    self._kind = kind

  def register(self, name: str) -> Callable[[Part], Part]:
    """Returns a decorator that adds a part under `name`."""

    def add(part):
      self[name] = part
      return part

    return add

  def __missing__(self, name: str) -> Part:
    """Raises `UserError` with the names that are known."""
    raise unknown(self._kind, name, self)
