"""The programs in docs/elsewhere.md about the neuron alone run as they stand.

Those about a trained network are in `test_every_sample`.
"""

import pathlib
import re

import jax
import pytest

DOCUMENT = (
  pathlib.Path(__file__).parents[2] / 'docs' / 'elsewhere.md'
).read_text()


def programs(heading):
  """The Python programs below a heading."""
  _, _, section = DOCUMENT.partition(f'\n## {heading}\n')
  section = section.partition('\n## ')[0]
  return re.findall(r'```python\n(.*?)```', section, re.DOTALL)


PLAIN, *FRAMEWORKS = programs('The neuron in other JAX frameworks')


@pytest.mark.parametrize(
  ('programs', 'weights'),
  [
    pytest.param((), 2, id='jax'),
    pytest.param(FRAMEWORKS[:1], 5, id='flax'),
    # It comes with the extra `onnx`, as for the slow tests of `.ci/run`.
    pytest.param(FRAMEWORKS[1:], 4, id='equinox', marks=pytest.mark.slow),
  ],
)
def test_every_weight_gets_a_gradient(programs, weights):
  if any('equinox' in program for program in programs):
    pytest.importorskip('equinox')
  names = {}
  with jax.numpy_dtype_promotion('standard'):
    for program in (PLAIN, *programs):
      exec(compile(program, 'docs/elsewhere.md', 'exec'), names)
  gradients = jax.tree.leaves(names['gradients'])
  assert len(gradients) == weights
  assert all(abs(gradient).max() > 0 for gradient in gradients)
