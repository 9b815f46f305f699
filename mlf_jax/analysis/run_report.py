"""The report of a run, or of several side by side: one page of HTML."""

import collections
import numbers
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mlf_jax import data
from mlf_jax.analysis import page, plots, report_sections, report_summary
from mlf_jax.analysis.inspection import Inspection, inspect_run
from mlf_jax.analysis.report_painter import Painter
from mlf_jax.analysis.report_sections import Group
from mlf_jax.data import io as files
from mlf_jax.errors import UserError
from mlf_jax.training import config as config_lib
from mlf_jax.training import workdir as workdir_lib


def report(
  workdir: str | os.PathLike,
  dataset: data.Dataset | None = None,
  *,
  compare: Sequence[str | os.PathLike] = (),
  checkpoint: str = 'best',
) -> pathlib.Path:
  """Writes `report.html` and the pictures in it, `report/*.png`, to a run.

  Prints what stands first in the report, in words.

      analysis.report('runs/k3', compare=['runs/k1', 'runs/k2'])

  Args:
    workdir: directory of the run, finished or not.
    dataset: arrays of your own, if the runs were trained on such.
    compare: directories of further runs to show beside it, on the same axes.
      Runs that differ in their seed only share a colour.
    checkpoint: 'best' or 'last'.

  Returns:
    Path of the page, which needs no other file.

  Raises:
    UserError: Matplotlib is not installed, or a directory holds no run or no
      checkpoint.
  """
  plots.require_matplotlib()
  if isinstance(compare, (str, os.PathLike)):
    raise UserError(f'compare must be a list of directories, got {compare!r}')
  runs = []
  for directory in (workdir, *compare):
    print(f'measuring {directory} ...', flush=True)
    runs.append(inspect_run(directory, dataset, checkpoint))
  groups = _grouped(runs)
  for sentence in report_summary.sentences(groups):
    print(sentence)
  print('drawing ...', flush=True)
  path = runs[0].workdir / 'report.html'
  with workdir_lib.write_errors(path):
    folder = path.with_name('report')
    folder.mkdir(exist_ok=True)
    for old in folder.glob('*.png'):
      old.unlink()
    text = page.document(
      *report_sections.title(groups),
      report_sections.sections(groups, Painter(folder)),
    )
    files.write_atomically(path, text.encode())
  return path


def _grouped(runs: Sequence[Inspection]) -> list[Group]:
  """Puts runs together that differ in their seed only.

  Groups that differ in one number, or in their levels, are sorted by it and
  labelled with it; others are in the order of the runs and have the names of
  their directories.
  """
  groups = collections.defaultdict(list)
  for run in runs:
    fields = config_lib.flatten(run.config)
    del fields['seed']
    groups[repr(sorted(fields.items()))].append((fields, run))
  fields = [members[0][0] for members in groups.values()]
  groups = [[run for _, run in members] for members in groups.values()]
  differing = [
    name
    for name in {name for of_group in fields for name in of_group}
    if len({repr(of_group.get(name)) for of_group in fields}) > 1
  ]
  if len(differing) == 1:
    (name,) = differing
    values = [of_group[name] for of_group in fields]
    return _labelled_with(name, values, groups)
  labels = [members[0].workdir.resolve().name for members in groups]
  if len({*labels}) < len(labels):
    labels = [str(members[0].workdir) for members in groups]
  return [*map(Group, labels, groups)]


def _labelled_with(name, values, groups):
  """Groups labelled with the value of a field, and sorted if it is a number."""
  label = f'{name.rpartition(".")[2]} = {{}}'.format
  if name == 'unit.thresholds' and len({*map(len, values)}) == len(values):
    values, label = [*map(len, values)], 'K = {}'.format
  order = range(len(values))
  if all(isinstance(value, numbers.Real) for value in values):
    order = np.argsort(values, kind='stable')
  return [Group(label(values[i]), groups[i]) for i in order]
