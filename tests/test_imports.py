"""Imports run one way, and `import mlf_jax` stays light."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

import mlf_jax

ROOT = pathlib.Path(mlf_jax.__file__).parent

# From the lowest to the highest; parts of one line do not import each other.
LAYERS = (
  'errors',
  'registry fields',
  'neuron data',
  'layers',
  'models',
  'activity stream',
  'training',
  'analysis interop',
  'studies',
  'cli',
  '__main__',
)
RANK = {part: i for i, parts in enumerate(LAYERS) for part in parts.split()}
FILES = {
  '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts): path
  for path in sorted(ROOT.rglob('*.py'))
}


def imports(module):
  """Modules of the package that a module imports, wherever in its text."""
  for node in ast.walk(ast.parse(FILES[module].read_text())):
    if isinstance(node, ast.Import):
      names = [(alias.name,) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [
        (f'{node.module}.{alias.name}', node.module) for alias in node.names
      ]
    else:
      continue
    for candidates in names:
      files = [f for c in candidates for f in (c, f'{c}.__init__')]
      yield from [f for f in files if f in FILES][:1]


GRAPH = {module: {*imports(module)} - {module} for module in FILES}


def test_no_arrow_leads_from_a_lower_package_to_a_higher_one():
  for module, others in GRAPH.items():
    part = module.split('.')[1]
    for other in others if part != '__init__' else ():
      lower = other.split('.')[1]
      assert lower == part or RANK[lower] < RANK[part], (module, other)


def test_no_cycle():
  # The face of a package is imported with each of its modules: no arrow.
  graph = {
    module: {o for o in others if o.removesuffix('__init__') not in module}
    for module, others in GRAPH.items()
  }
  list(graphlib.TopologicalSorter(graph).static_order())


def test_the_root_holds_few_modules():
  names = ['__init__', '__main__', 'errors', 'fields', 'registry', 'stream']
  assert sorted(path.stem for path in ROOT.glob('*.py')) == names


def test_heavy_libraries_are_imported_where_they_are_said_to_be():
  def importers(library):
    return {m for m, f in FILES.items() if f'import {library}' in f.read_text()}

  assert importers('orbax') == {'mlf_jax.training.checkpoint'}
  assert all('.data.' in m for m in importers('tensorflow_datasets'))
  code = 'import sys, mlf_jax.training; print(*sys.modules)'
  loaded = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  ).stdout.split()
  heavy = [
    'orbax',
    'tensorflow',
    'tensorflow_datasets',
    'matplotlib',
    'sklearn',
  ]
  assert not {*heavy, 'jax.experimental.pallas'} & {*loaded}


@pytest.mark.parametrize(
  ('module', 'names'),
  [
    ('mlf_jax', 'mlf MLFParams MLFState SpikingClassifier UserError'),
    ('mlf_jax.neuron', 'MLFParams init_state step run'),
    ('mlf_jax.layers', 'TDBatchNorm'),
    ('mlf_jax.models', 'SpikingResNet ds_resnet20_cifar10 spiking_vgg16'),
    ('mlf_jax.models', 'ds_resnet20_dvs_gesture ds_resnet14_cifar10_dvs'),
    ('mlf_jax.interop.torch', 'from_reference to_reference'),
    ('mlf_jax.stream', 'init feed'),
    ('mlf_jax.activity', 'observe measure merge join gradient_norms'),
    ('mlf_jax.data', 'from_arrays'),
    ('mlf_jax.training', 'train evaluate default_config'),
  ],
)
def test_public_names(module, names):
  assert {*names.split()} <= {*dir(importlib.import_module(module))}
