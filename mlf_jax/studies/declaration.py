"""Declaration of a study: its question, its configurations, its measures."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping

import ml_collections

from mlf_jax.errors import UserError
from mlf_jax.studies.measures import test_accuracy
from mlf_jax.training import config as config_lib

# A measure of a finished run: maps its directory and the content of its
# `result.json` to numbers by name.
Measure = Callable[[pathlib.Path, dict], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Study:
  """A question, and the trainings that answer it.

  Attributes:
    question: what the study asks, one sentence.
    cells: fields of the configuration by the name of each cell, such as
      `{'K=1': {'unit.thresholds': (0.6,)}}`. See
      `mlf_jax.training.with_fields`.
    measures: what is measured of each finished run, functions such as those of
      `mlf_jax.studies.measures`.
    config: the configuration that the cells change, if the command line names
      no other one.
    fields: fields of that configuration, which make the study small. They do
      not apply to a configuration that the command line names.
    lines: what the measures are if all are of one kind, such as accuracies by
      timestep: they are then drawn as a line per cell. '': each measure is
      drawn over the cells.

  Raises:
    UserError: there is no cell or no measure, a measure is no function, or the
      name of a cell cannot be that of a folder of its own.
  """

  question: str
  cells: Mapping[str, Mapping[str, object]]
  measures: tuple[Measure, ...] = (test_accuracy,)
  config: str = 'digits'
  fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
  lines: str = ''

  def __post_init__(self):
    """Validates the attributes."""
    if not self.cells or not self.measures:
      raise UserError('a study needs at least one cell and one measure')
    for measure in self.measures:
      if not hasattr(measure, '__name__'):
        raise UserError(f'a measure must be a function, got {measure!r}')
    for name in self.cells:
      if not re.fullmatch(r'[\w=+-][\w.,=+ -]*', name):
        raise UserError(
          f'the cell {name!r} must be named by letters, digits, spaces and '
          '. , = + - _, as a folder'
        )
    if len({name.replace(' ', '_') for name in self.cells}) < len(self.cells):
      raise UserError('two cells would have the same folder: name them apart')

  def configs(
    self, base: ml_collections.ConfigDict
  ) -> dict[str, ml_collections.ConfigDict]:
    """The configuration of each cell.

    Args:
      base: the configuration that the cells change.

    Raises:
      UserError: a field of a cell is unknown or its value is wrong.
    """
    configs = {}
    for name, fields in self.cells.items():
      try:
        configs[name] = config_lib.with_fields(base, fields)
        config_lib.validate(configs[name], 1)
      except UserError as error:
        raise UserError(f'cell {name!r}: {error}') from None
    return configs
