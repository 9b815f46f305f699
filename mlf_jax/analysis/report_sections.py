"""The sections of a report: pictures, tables, and what they mean."""

from collections.abc import Iterator, Sequence

from mlf_jax.analysis import cost, page
from mlf_jax.analysis import report_pictures as pictures
from mlf_jax.analysis.report_painter import Painter
from mlf_jax.analysis.report_summary import Group, labelled, observed, summary
from mlf_jax.training import config as config_lib

Section = tuple[str, str, str]


def title(groups: Sequence[Group]) -> tuple[str, str]:
  """Title and subtitle of the page."""
  first = groups[0].first
  names = ' and '.join(
    dict.fromkeys(group.first.dataset.name for group in groups)
  )
  number = sum(len(group.runs) for group in groups)
  if number > 1:
    compared = ', '.join(group.label for group in groups)
    return f'{names}: {compared}', f'{number} runs side by side'
  return (
    f'{names}: {first.config.model.name}',
    f'{first.workdir}, checkpoint of step {first.step:,}',
  )


def sections(groups: Sequence[Group], painter: Painter) -> Iterator[Section]:
  """Yields name, heading and HTML of each section."""
  yield 'summary', 'In short', summary(groups)
  yield 'training', 'Training', _training(groups, painter)
  yield 'mistakes', 'Mistakes', _mistakes(groups, painter)
  yield 'time', 'Accuracy over time', _time(groups, painter)
  yield 'depth', 'Activity and gradients by depth', _by_depth(groups, painter)
  yield 'sample', 'Inside one sample', _one_sample(groups, painter)
  yield 'energy', 'Operations and energy', _energy(groups)
  yield 'run', 'What was run', _what_was_run(groups)


def _training(groups, painter):
  if not any(run.metrics for group in groups for run in group.runs):
    return page.paragraph('There is no metrics.jsonl in the directory.')
  return page.figures(pictures.curves(groups, painter))


def _mistakes(groups, painter):
  text = page.paragraph(
    'A row of the confusion matrix holds the test samples of one class. The '
    'images are the mistakes of which the network is most certain: the true '
    'class, the class it is taken for, and the probability of that class. Of a '
    'recording the frame with the most events is shown.'
  )
  return text + _arranged(
    groups,
    pictures.confusion(groups, painter),
    pictures.most_confidently_wrong(groups, painter),
  )


def _time(groups, painter):
  known = [group for group in groups if group.first.knows_every_timestep]
  text = '\n'.join(
    page.sentence(
      labelled(
        group,
        groups,
        'the network does not tell its logits of every timestep',
      )
    )
    for group in groups
    if not group.first.knows_every_timestep
  )
  if known:
    text += page.figures(pictures.over_time(known, painter))
  return text


def _by_depth(groups, painter):
  seen, text = observed(groups), _unobserved(groups)
  gradients = pictures.gradients(groups, painter)
  explained = (
    "The gradient is that of each layer's weights: of the mean loss over all "
    'test samples, normalised as in inference.'
  )
  if not seen:
    return text + page.paragraph(explained) + page.figures(gradients)
  text += page.paragraph(
    'A unit is dormant at a timestep if no level has its membrane potential in '
    'its surrogate window: it then gets no gradient of that timestep. Hollow '
    'points are projections of shortcuts. '
    'Thresholds are dashed in the histograms, windows are bands; how much lies '
    f'beyond their ends is written there. {explained}'
  )
  text += _arranged(
    groups,
    pictures.rates(seen, painter),
    [*pictures.dormant(seen, painter), *gradients],
    pictures.membranes(seen, painter),
  )
  for group in seen:
    text += page.table(
      (
        'layer',
        'levels that fire',
        'dormant',
        'at all timesteps',
        'never fires',
        'always fires',
        'effective levels',
      ),
      (
        (
          name,
          f'{layer.firing_rate:.3f}',
          f'{layer.dormant_share:.1%}',
          f'{layer.dormant_throughout_share:.1%}',
          f'{layer.never_fires_share:.1%}',
          f'{layer.always_fires_share:.1%}',
          f'{layer.effective_levels:.2f}',
        )
        for name, layer in group.first.activity.items()
      ),
      labelled(group, groups, 'layers from first to last'),
    )
  return text + page.paragraph(
    'Effective levels: 1 if all units that fire emit the same number, K if 1 '
    'to K are equally frequent.'
  )


def _one_sample(groups, painter):
  seen = observed(groups)
  if not seen:
    return _unobserved(groups)
  label = seen[0].first.dataset.test.labels[0]
  text = page.paragraph(
    f'The first test sample, of class {label}. A row of the raster is a unit; '
    'of each layer equally many are shown. The other pictures show one unit of '
    'three layers: the busiest, which fires most, and a typical one, with the '
    'median of the highest potentials. A filled point is a spike.'
  )
  return (
    _unobserved(groups)
    + text
    + _arranged(
      groups,
      pictures.raster(seen, painter),
      *pictures.traces(seen, painter),
    )
  )


def _arranged(groups, *kinds):
  """Pictures of one run in one grid, of several runs in a grid per kind."""
  if len(groups) == 1:
    kinds = [[picture for kind in kinds for picture in kind]]
  return '\n'.join(map(page.figures, kinds))


def _unobserved(groups):
  """A line for each group whose units cannot be observed."""
  return '\n'.join(
    page.sentence(labelled(group, groups, group.first.unobserved))
    for group in groups
    if group.first.unobserved
  )


def _energy(groups):
  reasons = [
    page.sentence(labelled(group, groups, group.first.cost))
    for group in groups
    if isinstance(group.first.cost, str)
  ]
  text = '\n'.join(reasons)
  known = [g for g in groups if not isinstance(g.first.cost, str)]
  if not known:
    return text
  rows = []
  for group in known:
    of_run = group.first.cost
    energy = of_run.energy_joules
    rows.append(
      (
        group.label,
        _operations(of_run.macs),
        _operations(of_run.accumulates),
        f'{energy.mean * 1e6:.3g} ± {energy.deviation * 1e6:.2g}',
        f'{of_run.relu_macs:,}',
        f'{of_run.relu_energy_joules * 1e6:.3g}',
        f'{energy.mean / of_run.relu_energy_joules:.1%}',
        f'{of_run.parameter_bytes / 1e6:.2f}',
      )
    )
  text += page.table(
    (
      '',
      'multiply-accumulates',
      'accumulates',
      'energy (µJ)',
      'with ReLU: MACs',
      'energy (µJ)',
      'spiking / ReLU',
      'weights (MB)',
    ),
    rows,
    'Per test sample: mean ± standard deviation over the test samples',
  )
  text += page.paragraph(
    'A layer whose input is real numbers costs multiply-accumulates, one whose '
    'input is spikes an accumulate for each synapse of each spike; n levels '
    f'that fire are n spikes. {cost.CAVEAT}'
  )
  for group in known:
    text += page.table(
      ('layer', 'kind', 'mean', 'smallest', 'largest', 'with ReLU: MACs'),
      (
        (
          layer.name,
          layer.kind,
          f'{layer.operations.mean:,.0f}',
          f'{layer.operations.minimum:,.0f}',
          f'{layer.operations.maximum:,.0f}',
          f'{layer.relu_macs:,}',
        )
        for layer in group.first.cost.layers
      ),
      labelled(group, groups, 'operations per test sample'),
    )
  return text


def _operations(spread):
  text = f'{spread.mean:,.0f}'
  return text + (f' ± {spread.deviation:,.0f}' if spread.deviation else '')


def _what_was_run(groups):
  header = ('', *(group.label for group in groups))

  def rows(values):
    names = list(dict.fromkeys(n for of_run in values for n in of_run))
    return [
      (name, *(of_run.get(name, '-') for of_run in values)) for name in names
    ]

  results = page.table(
    header, rows([_facts(group) for group in groups]), 'Runs', numbers=False
  )
  fields = [config_lib.flatten(group.first.config) for group in groups]
  for of_run, group in zip(fields, groups, strict=True):
    of_run['seed'] = ', '.join(str(run.config.seed) for run in group.runs)
  # What differs comes first.
  configuration = sorted(
    rows(fields), key=lambda row: len({*map(repr, row[1:])}) == 1
  )
  return results + page.table(
    header, configuration, 'Configuration', numbers=False
  )


def _facts(group):
  """Facts about a run that its configuration does not hold."""
  run = group.first
  result, dataset = run.result, run.dataset
  facts = {
    'directory': run.workdir,
    'checkpoint': f'step {run.step:,}',
    'training': f'finished after {result["steps"]:,} steps'
    if result
    else 'not finished',
    'data set': dataset.name,
    'split': dataset.split_name,
    **{f'{n} samples': f'{len(s):,}' for n, s in dataset.splits.items()},
    'hash of the test samples': dataset.test.split_hash,
    'parameters': f'{run.parameters:,}',
    'unit': run.unit,
  }
  if result:
    facts |= {
      'test accuracy at the end': f'{result["test/accuracy"]:.4f}',
      'best test accuracy': f'{result["best/test/accuracy"]:.4f} at step '
      f'{result["best/step"]:,}, chosen on the {result["best/chosen_on"]}',
      'training time': f'{result["wall_seconds"]:.0f} s',
      'devices': f'{result["num_devices"]} {result["device"]}',
      **result['versions'],
    }
  return facts
