"""The outcome of a study: a table, a plot and the numbers."""

import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from mlf_jax.studies.declaration import Study
from mlf_jax.training import workdir as workdir_lib

# What is measured of the runs of a cell, by seed.
Outcomes = Mapping[str, Mapping[int, dict]]


class Spread(NamedTuple):
  """A measure over the seeds of a cell; NaN where there are too few."""

  mean: float
  standard_deviation: float
  values: tuple[float, ...]

  @classmethod
  def of(cls, values) -> 'Spread':
    """Mean and standard deviation, n - 1 in its denominator."""
    values = tuple(values)
    mean = statistics.fmean(values) if values else math.nan
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return cls(mean, deviation, values)

  def __str__(self) -> str:
    """Mean and deviation, with four significant digits of the mean."""
    if not self.values:
      return ''
    text = f'{self.mean:.4g}'
    if math.isfinite(self.standard_deviation):
      text += f' ± {self.standard_deviation:.2g}'
    return text


def spreads(outcomes: Outcomes) -> dict[str, dict[str, Spread]]:
  """Spread of each measure, by cell; every cell has all measures."""
  names = dict.fromkeys(
    name
    for seeds in outcomes.values()
    for outcome in seeds.values()
    for name in outcome.get('values', ())
  )

  def of(seeds, name):
    found = (outcome.get('values', {}).get(name) for outcome in seeds.values())
    return Spread.of(value for value in found if value is not None)

  return {
    cell: {name: of(seeds, name) for name in names}
    for cell, seeds in outcomes.items()
  }


def table(outcomes: Outcomes) -> str:
  """Markdown table: a row per cell; mean ± deviation (each seed)."""
  by_cell = spreads(outcomes)
  names = list(next(iter(by_cell.values())))
  lines = [f'| | {" | ".join(names)} |', '| --- ' * (len(names) + 1) + '|']
  for cell, measures in by_cell.items():
    texts = []
    for spread in measures.values():
      text = str(spread)
      if len(spread.values) > 1:
        text += f' ({", ".join(f"{value:.4g}" for value in spread.values)})'
      texts.append(text)
    diverged = [
      str(seed)
      for seed, outcome in outcomes[cell].items()
      if 'diverged' in outcome
    ]
    label = cell
    if diverged:
      label += f'; no finite gradient: seed {", ".join(diverged)}'
    lines.append(f'| {label} | {" | ".join(texts)} |')
  return '\n'.join(lines) + '\n'


def write(
  study: Study,
  outcomes: Outcomes,
  about: Mapping[str, object],
  workdir: pathlib.Path,
) -> list[pathlib.Path]:
  """Writes `table.md`, `results.json` and, with Matplotlib, `plot.png`.

  Args:
    study: the study.
    outcomes: what was measured of each run.
    about: what else belongs into `results.json`.
    workdir: directory of the study.

  Returns:
    The files.

  Raises:
    UserError: a file cannot be written.
  """
  files = [workdir / 'table.md', workdir / 'results.json']
  workdir_lib.write_bytes(
    files[0], f'{study.question}\n\n{table(outcomes)}'.encode()
  )
  cells = {
    cell: {
      'fields': dict(study.cells[cell]),
      'measures': {name: s._asdict() for name, s in measures.items()},
      'seeds': {str(seed): outcome for seed, outcome in outcomes[cell].items()},
    }
    for cell, measures in spreads(outcomes).items()
  }
  workdir_lib.write_json(
    files[1], {'question': study.question, **about, 'cells': cells}
  )
  if figure := _figure(study, outcomes):
    files.append(workdir / 'plot.png')
    figure.savefig(files[-1], dpi=150)
  return files


def _figure(study, outcomes):
  """The plot; None without Matplotlib."""
  try:
    from matplotlib.figure import Figure
  except ImportError:
    return None
  by_cell = spreads(outcomes)
  names = list(next(iter(by_cell.values())))
  if study.lines:
    figure = Figure(figsize=(6, 4), layout='constrained')
    _draw_lines(figure.subplots(), study.lines, by_cell)
    return figure
  width = max(3.2, 0.55 * len(by_cell))
  figure = Figure((width * len(names) or 1, 3.6), layout='constrained')
  every_axes = figure.subplots(1, len(names), squeeze=False) if names else [[]]
  for ax, name in zip(every_axes[0], names, strict=True):
    _draw_cells(ax, name, [measures[name] for measures in by_cell.values()])
    ax.set_xticks(range(len(by_cell)), by_cell, rotation=45, ha='right')
  return figure


def _draw_cells(ax, name, measures):
  """A measure over the cells: each seed a point, mean and deviation a bar."""
  for place, spread in enumerate(measures):
    seeds = [place] * len(spread.values)
    ax.plot(seeds, spread.values, 'o', ms=4, color='C0', alpha=0.5)
    deviation = spread.standard_deviation
    ax.errorbar(
      place,
      spread.mean,
      yerr=deviation if math.isfinite(deviation) else None,
      fmt='_',
      ms=16,
      color='C1',
      capsize=4,
    )
  ax.set(ylabel=name, xlim=(-0.5, len(measures) - 0.5))
  ax.grid(axis='y', alpha=0.3)


def _draw_lines(ax, label, by_cell):
  """A line per cell over all measures, with the deviation as a band."""
  for number, (cell, measures) in enumerate(by_cell.items()):
    known = {name: s for name, s in measures.items() if s.values}
    places = [list(measures).index(name) for name in known]
    mean = [spread.mean for spread in known.values()]
    band = [
      spread.standard_deviation
      if math.isfinite(spread.standard_deviation)
      else 0.0
      for spread in known.values()
    ]
    ax.plot(places, mean, 'o-', ms=4, color=f'C{number}', label=cell)
    lower = [m - b for m, b in zip(mean, band, strict=True)]
    upper = [m + b for m, b in zip(mean, band, strict=True)]
    ax.fill_between(places, lower, upper, color=f'C{number}', alpha=0.2)
  names = list(next(iter(by_cell.values())))
  ax.set_xticks(range(len(names)), names, rotation=45, ha='right')
  ax.set_ylabel(label)
  ax.grid(alpha=0.3)
  ax.legend()
