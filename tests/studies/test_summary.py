"""Table, numbers and plot of a study, from made-up outcomes."""

import json
import math

import pytest

from mlf_jax.studies import Study, summary

OUTCOMES = {
  'A': {
    0: {'values': {'x': 0.5, 'y': 2.0}},
    1: {'values': {'x': 0.7, 'y': 2.0}},
    2: {'values': {'x': 0.9, 'y': 2.0}},
  },
  'B': {0: {'values': {'x': 0.25}}, 1: {'diverged': 'not finite'}},
  'C': {},
}


def test_table_by_hand():
  assert summary.table(OUTCOMES).splitlines() == [
    '| | x | y |',
    '| --- | --- | --- |',
    '| A | 0.7 ± 0.2 (0.5, 0.7, 0.9) | 2 ± 0 (2, 2, 2) |',
    '| B; no finite gradient: seed 1 | 0.25 |  |',
    '| C |  |  |',
  ]


def test_deviation_is_that_of_a_sample():
  spread = summary.Spread.of([1.0, 2.0, 4.0])
  assert spread.mean == pytest.approx(7 / 3)
  assert spread.standard_deviation == pytest.approx(math.sqrt(7 / 3))


@pytest.mark.parametrize('lines', ['', 'accuracy'])
def test_files(tmp_path, lines):
  study = Study('Why?', {name: {} for name in OUTCOMES}, lines=lines)
  files = summary.write(study, OUTCOMES, {'study': 'mine'}, tmp_path)
  names = ['table.md', 'results.json', 'plot.png']
  assert [path.name for path in files] == names
  assert files[0].read_text().startswith('Why?\n\n| | x | y |\n')
  stored = json.loads(files[1].read_text())
  assert stored['study'] == 'mine'
  assert stored['cells']['A']['measures']['x']['values'] == [0.5, 0.7, 0.9]
  assert stored['cells']['B']['seeds']['1'] == {'diverged': 'not finite'}
  assert files[2].read_bytes().startswith(b'\x89PNG')


def test_nothing_finished_yet_is_an_empty_table(tmp_path):
  study = Study('Why?', {'A': {}})
  summary.write(study, {'A': {}}, {}, tmp_path)
  assert (tmp_path / 'table.md').read_text().endswith('| A |  |\n')
