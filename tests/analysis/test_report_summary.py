"""The words of a report follow from the numbers."""

import types

import numpy as np
import pytest

from mlf_jax.activity import LayerActivity
from mlf_jax.analysis.report_summary import Group, sentences, spread, summary


def layer(fired, dormant=0.5, units=10, pairs=1000):
  """A layer of one level, of which a share of pairs fires."""
  spikes = round(fired * pairs)
  return LayerActivity(
    samples=np.int64(25),
    pairs=np.int64(pairs),
    spikes=np.array([spikes]),
    in_window=np.array([round((1 - dormant) * pairs)]),
    outputs=np.array([pairs - spikes, spikes]),
    dormant=np.int64(round(dormant * pairs)),
    dormant_throughout=np.zeros(units, int),
    active=np.full(units, spikes // units),
  )


def run(accuracy=0.75, layers=None, norms=(2.0, 1.0), unobserved='', seed=0):
  labels = np.arange(100) % 2
  wrong = np.arange(100) >= 100 * accuracy
  if layers is None:
    layers = {'units1': layer(0.2)}
  names = ('conv1', *(f'conv{i}' for i in range(2, 1 + len(norms))), 'voting')
  return types.SimpleNamespace(
    accuracy=accuracy,
    predictions=labels ^ wrong,
    dataset=types.SimpleNamespace(test=types.SimpleNamespace(labels=labels)),
    step=7,
    parameters=1234,
    config=types.SimpleNamespace(
      seed=seed, model=types.SimpleNamespace(time_steps=4)
    ),
    result={'steps': 7},
    activity={} if unobserved else layers,
    unobserved=unobserved,
    gradient_norms=dict(zip(names, (*norms, 0.5), strict=True)),
    cost='not counted',
  )


def words(*groups):
  return ' '.join(sentences([*groups]))


def test_one_run_in_words():
  layers = {'units1': layer(0.2, 0.7), 'units2': layer(0.4, 0.1, pairs=3000)}
  text = words(Group('digits', [run(layers=layers)]))
  assert '75 of 100 test samples are classified correctly' in text
  # Pairs count alike, whatever layer they belong to.
  assert f'{(200 + 1200) / 4000:.3f} of 1 level fires' in text
  assert f'{(700 + 300) / 4000:.0%} of the (unit, timestep) pairs' in text
  assert '2 times that of the last hidden layer' in text
  assert 'silent' not in text and 'saturated' not in text


@pytest.mark.parametrize(
  ('norms', 'words_'),
  [
    ((0.001, 1.0), 'it vanishes'),
    ((1000.0, 1.0), 'it explodes'),
    ((12.0, 1.0), 'it neither vanishes nor explodes'),
    ((0.0, 1.0), 'No gradient reaches the first layer'),
    ((1.0, 0.0), 'No gradient reaches the last hidden layer'),
    ((0.0, 0.0), 'No gradient reaches the first layer'),
  ],
)
def test_gradients_in_words(norms, words_):
  assert words_ in words(Group('digits', [run(norms=norms)]))


def test_layers_without_spikes_are_named():
  layers = {'units1': layer(0.0), 'units2': layer(0.3), 'units3': layer(1.0)}
  text = words(Group('digits', [run(layers=layers)]))
  assert 'Hardly a unit fires in units1: silent' in text
  assert 'All levels fire in units3: saturated' in text
  text = words(Group('digits', [run(layers={'units1': layer(0.0)})]))
  assert 'Hardly a unit fires in all layers' in text


def test_groups_differ_if_their_seeds_do_not_overlap():
  def group(label, *accuracies):
    runs = [run(a, seed=i) for i, a in enumerate(accuracies)]
    return Group(label, runs)

  one, three = group('K = 1', 0.5, 0.6), group('K = 3', 0.7, 0.8)
  text = words(one, three)
  assert 'Test accuracy is higher with K = 3 than with K = 1' in text
  assert '(K = 1: 0.5500 (0.5000 to 0.6000); K = 3: 0.7500' in text
  assert 'is lower with K = 1 than with K = 3' in words(three, one)
  overlap = words(one, group('K = 3', 0.55, 0.9))
  assert 'Test accuracy does not differ clearly between K = 1' in overlap
  assert 'One run each' not in text
  dead = Group('dead', [run(norms=(0.0, 0.0))])
  assert 'cannot be compared between K = 1 and dead' in words(one, dead)
  assert 'One run each' in words(Group('a', [run()]), Group('b', [run()]))


def test_units_that_cannot_be_observed_are_left_out_of_comparisons():
  seen = Group('mlf', [run()])
  hidden = Group('relu', [run(unobserved='ReLU has no observe')])
  text = words(seen, hidden)
  assert 'relu: ReLU has no observe.' in text and 'dormant share' not in text
  assert '<td>-</td>' in summary([seen, hidden])


def test_spread_leaves_out_what_is_not_finite():
  assert spread([1.0], '{:.1f}') == '1.0'
  assert spread([1.0, 3.0], '{:.1f}') == '2.0 (1.0 to 3.0)'
  assert spread([np.nan, np.inf], '{:.1f}') == '-'
