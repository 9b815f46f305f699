"""Imports run one way, and `import mlf_jax` stays light."""

import ast
import graphlib
import importlib
import importlib.util
import pathlib
import subprocess
import sys

import pytest

import mlf_jax

ROOT = pathlib.Path(mlf_jax.__file__).parent

# From the lowest to the highest; those of one tuple do not import each other.
LAYERS = (
  ('errors',),
  ('registry', 'fields'),
  ('neuron', 'data'),
  ('layers',),
  ('models',),
  ('stream', 'training'),
  ('analysis', 'interop'),
  ('cli',),
  ('__main__',),
)
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
MODULES = {
  '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts): path
  for path in sorted(ROOT.rglob('*.py'))
}


def imported(name):
  """Modules of the package that a module imports, wherever in its text."""
  for node in ast.walk(ast.parse(MODULES[name].read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
      names = [n if found(n) else node.module for n in names]
    else:
      continue
    for other in names:
      if other.split('.')[0] == 'mlf_jax' and (module := found(other)):
        yield module


def found(name):
  return next(
    (n for n in (name, f'{name}.__init__') if n in MODULES),
    None,
  )


def part_of(module):
  return module.split('.')[1]


@pytest.mark.parametrize('module', [m for m in MODULES if m.count('.') > 0])
def test_no_arrow_leads_from_a_lower_package_to_a_higher_one(module):
  part = part_of(module)
  if part == '__init__':  # The public face of everything.
    return
  for other in imported(module):
    lower = part_of(other)
    assert lower == part or RANK[lower] < RANK[part], f'imports {other}'


def test_no_cycle():
  graph = {module: set(imported(module)) - {module} for module in MODULES}
  # A package's face is imported with each of its modules: not an arrow.
  for module, others in graph.items():
    package = module.removesuffix('.__init__').rpartition('.')[0]
    others -= {f'{package}.__init__', 'mlf_jax.__init__'}
  list(graphlib.TopologicalSorter(graph).static_order())


def test_the_root_holds_few_modules():
  root = {path.stem for path in ROOT.glob('*.py')}
  assert root == {
    '__init__',
    '__main__',
    'errors',
    'fields',
    'registry',
    'stream',
  }


def test_orbax_and_tensorflow_datasets_are_imported_where_they_are_said_to_be():
  def importers(library):
    return {
      name
      for name, path in MODULES.items()
      if f'import {library}' in path.read_text()
    }

  assert importers('orbax') == {'mlf_jax.training.checkpoint'}
  assert all('.data.' in name for name in importers('tensorflow_datasets'))


def test_import_is_light():
  heavy = (
    'orbax',
    'tensorflow',
    'tensorflow_datasets',
    'matplotlib',
    'sklearn',
    'jax.experimental.pallas',
  )
  code = f'import sys, mlf_jax; print([m for m in {heavy} if m in sys.modules])'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'


@pytest.mark.parametrize(
  'name',
  [
    'mlf_jax.neuron.MLFParams',
    'mlf_jax.neuron.init_state',
    'mlf_jax.neuron.step',
    'mlf_jax.neuron.run',
    'mlf_jax.mlf',
    'mlf_jax.layers.TDBatchNorm',
    'mlf_jax.models.SpikingResNet',
    'mlf_jax.models.ds_resnet20_cifar10',
    'mlf_jax.models.ds_resnet20_dvs_gesture',
    'mlf_jax.models.ds_resnet14_cifar10_dvs',
    'mlf_jax.models.spiking_vgg16',
    'mlf_jax.interop.torch.from_reference',
    'mlf_jax.interop.torch.to_reference',
    'mlf_jax.stream.init',
    'mlf_jax.stream.feed',
  ],
)
def test_public_names(name):
  module, _, attribute = name.rpartition('.')
  assert importlib.util.find_spec(module)
  assert hasattr(importlib.import_module(module), attribute)
