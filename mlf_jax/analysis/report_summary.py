"""A report in short: a table of the runs and what it means, in plain words."""

import collections
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlf_jax import activity
from mlf_jax.analysis import page
from mlf_jax.analysis.inspection import Inspection
from mlf_jax.training.activity_log import problems


class Group(NamedTuple):
  """Runs that differ in their seed only; pictures of one show the first."""

  label: str
  runs: list[Inspection]

  @property
  def first(self) -> Inspection:
    """The first run."""
    return self.runs[0]


def observed(groups: Sequence[Group]) -> list[Group]:
  """Groups whose units could be observed."""
  return [group for group in groups if not group.first.unobserved]


def labelled(group: Group, groups: Sequence[Group], text: str = '') -> str:
  """Text after the name of a group's first run, unless it is the only run."""
  if len(groups) == 1 and len(group.runs) == 1:
    return text
  seed = f', seed {group.first.config.seed}' if len(group.runs) > 1 else ''
  return f'{group.label}{seed}' + (f': {text}' if text else '')


def summary(groups: Sequence[Group]) -> str:
  """The section, as HTML."""
  header = [
    '',
    'test accuracy',
    'timesteps',
    'parameters',
    'levels that fire',
    'dormant',
    'gradient first / last',
    'energy / ReLU',
  ]
  rows = []
  for group in groups:
    first = group.first
    rows.append(
      [
        group.label,
        spread([run.accuracy for run in group.runs], '{:.4f}'),
        first.config.model.time_steps,
        f'{first.parameters:,}',
        spread(_of_all(group, _firing_rate), '{:.3f}'),
        spread(_of_all(group, _dormant_share), '{:.1%}'),
        spread([_first_to_last(run) for run in group.runs], '{:.2f}'),
        spread([_energy_to_relu(run) for run in group.runs], '{:.1%}'),
      ]
    )
  seeds = max(len(group.runs) for group in groups)
  caption = 'Mean, and smallest to largest of the seeds' if seeds > 1 else ''
  return page.table(header, rows, caption) + '\n'.join(
    map(page.paragraph, sentences(groups))
  )


def sentences(groups: Sequence[Group]) -> Iterator[str]:
  """Sentences about one run, or about the differences of several."""
  if len(groups) > 1:
    return _comparison(groups)
  return _in_words(groups[0].first)


def _in_words(run):
  """Sentences about one run."""
  labels = run.dataset.test.labels
  right = int((run.predictions == labels).sum())
  yield (
    f'{right:,} of {len(labels):,} test samples are classified correctly after '
    f'{run.step:,} training steps.'
    + ('' if run.result else ' The run is not finished.')
  )
  if run.unobserved:
    yield f'The inside of the units is not shown: {run.unobserved}.'
  else:
    yield (
      f'Per unit and timestep {_firing_rate(run):.3f} of {_levels(run)}; '
      f'{_of_units(run, "never_fires_share"):.0%} of the units never fire on '
      f'the test samples, {_of_units(run, "always_fires_share"):.0%} always do.'
    )
    yield (
      f'{_dormant_share(run):.0%} of the (unit, timestep) pairs are dormant: '
      'no membrane potential is in its surrogate window, so no gradient passes '
      'directly.'
    )
    yield from _warnings(run)
  ratio = _first_to_last(run)
  if not ratio or math.isnan(ratio):
    yield 'No gradient reaches the first layer.'
    return
  if math.isinf(ratio):
    yield 'No gradient reaches the last hidden layer.'
    return
  verdict = 'neither vanishes nor explodes'
  if not 0.01 <= ratio <= 100:
    verdict = 'vanishes' if ratio < 1 else 'explodes'
  yield (
    f'The gradient of the first layer is {ratio:.2g} times that of the last '
    f'hidden layer: it {verdict} on its way.'
  )


def _warnings(run):
  """Names layers that are silent or saturated."""
  by_kind = collections.defaultdict(list)
  for name, kind in problems(run.activity):
    by_kind[kind].append(name)
  for kind, names in by_kind.items():
    what = {'silent': 'Hardly a unit fires', 'saturated': 'All levels fire'}
    where = ', '.join(names)
    if len(names) == len(run.activity):
      where = 'all layers'
    yield f'{what[kind]} in {where}: {kind}; see docs/silent.md.'


def _comparison(groups):
  """Sentences about how the groups differ, in plain words."""
  if all(len(group.runs) == 1 for group in groups):
    yield 'One run each: other seeds may turn small differences around.'
  yield _difference(
    'Test accuracy',
    [(g.label, [run.accuracy for run in g.runs]) for g in groups],
    '{:.4f}',
    ('is higher', 'is lower'),
  )
  seen = [group for group in groups if not group.first.unobserved]
  if len(seen) > 1:
    yield _difference(
      'The dormant share of all (unit, timestep) pairs',
      [(g.label, _of_all(g, _dormant_share)) for g in seen],
      '{:.1%}',
      ('is higher', 'is lower'),
    )
  yield _difference(
    "The first layer's gradient, relative to the last hidden layer's,",
    [(g.label, [_first_to_last(run) for run in g.runs]) for g in groups],
    '{:.2f}',
    ('is larger', 'is smaller'),
  )
  for group in groups:
    if group.first.unobserved:
      yield f'{group.label}: {group.first.unobserved}.'
    for run in group.runs:
      for sentence in _warnings(run):
        yield f'{group.label}, seed {run.config.seed}: {sentence}'


def _difference(subject, values, form, words):
  """Says whether the last group's values differ from the first group's."""
  text = '; '.join(f'{label}: {spread(v, form)}' for label, v in values)
  (first_label, first), (last_label, last) = values[0], values[-1]
  if not np.isfinite([*first, *last]).all():
    verdict = f'cannot be compared between {first_label} and {last_label}'
  elif min(last) > max(first):
    verdict = f'{words[0]} with {last_label} than with {first_label}'
  elif max(last) < min(first):
    verdict = f'{words[1]} with {last_label} than with {first_label}'
  else:
    verdict = f'does not differ clearly between {first_label} and {last_label}'
  return f'{subject} {verdict} ({text}).'


def spread(values, form):
  """Mean, with smallest and largest if there are several values."""
  values = [value for value in values if math.isfinite(value)]
  if not values:
    return '-'
  text = form.format(np.mean(values))
  if len(values) > 1:
    text += f' ({form.format(min(values))} to {form.format(max(values))})'
  return text


def _of_all(group, measure):
  return [measure(run) for run in group.runs]


def _pooled(run, count):
  """A count of all layers per (unit, timestep) pair."""
  layers = run.activity.values()
  pairs = sum(int(layer.pairs) for layer in layers)
  total = sum(float(count(layer)) for layer in layers)
  return total / pairs if pairs else math.nan


def _of_units(run, share):
  """A share of units, over all layers."""
  layers = run.activity.values()
  units = [layer.active.size for layer in layers]
  return np.average([getattr(layer, share) for layer in layers], weights=units)


def _firing_rate(run):
  return _pooled(run, lambda layer: layer.spikes.sum())


def _dormant_share(run):
  return _pooled(run, lambda layer: layer.dormant)


def _first_to_last(run):
  ratio = activity.last_to_first(run.gradient_norms)
  return 1 / ratio if ratio else math.inf


def _energy_to_relu(run):
  """Estimated energy over that of the same network with ReLU."""
  if isinstance(run.cost, str):
    return math.nan
  return run.cost.energy_joules.mean / run.cost.relu_energy_joules


def _levels(run):
  number = max(layer.num_levels for layer in run.activity.values())
  return f'{number} levels fire' if number > 1 else '1 level fires'
