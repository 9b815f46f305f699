"""Cells of a study: how they change a configuration, and mistakes."""

import pathlib
import re

import pytest

from mlf_jax import UserError
from mlf_jax.cli import configuration
from mlf_jax.studies import Study
from mlf_jax.training import config as config_lib
from mlf_jax.training import default_config, with_fields
from tests.training import tiny

STUDIES = pathlib.Path(__file__).parents[2] / 'configs' / 'studies'


def test_another_unit_brings_its_fields_and_the_rest_stays():
  config = tiny.config(unit__decay=0.5, num_epochs=7)
  changed = with_fields(config, {'unit.name': 'lif', 'model.depth': 14})
  wanted = default_config(data='digits', unit='lif').unit.to_dict()
  assert changed.unit.to_dict() == {**wanted, 'decay': 0.5}
  kept = config_lib.flatten(config)
  for name, value in config_lib.flatten(changed).items():
    if name == 'model.depth':
      assert value == 14
    elif not name.startswith('unit.'):
      assert value == kept[name]
  assert config.unit.name == 'mlf' and config.model.depth == 8


def test_another_network_brings_its_fields():
  changed = with_fields(tiny.config(), {'model.name': 'spiking_vgg16'})
  assert changed.model.time_steps == 2 and changed.model.dropout_rate == 0.25
  assert 'depth' not in changed.model


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'unit.decai': 0.5}, "did you mean 'unit.decay'"),
    ({'unit.decay': 'fast'}, 'cell .A.: config.unit.decay: '),
    ({'unit.decay': 2.0}, 'config.unit.decay must be'),
    ({'unit.name': 'spike'}, "config.unit.name 'spike' is unknown"),
    ({'data.name': 'mnist'}, "data.name is 'digits' and cannot"),
  ],
)
def test_mistakes_in_cells_are_one_line(fields, message):
  with pytest.raises(UserError, match=message) as error:
    Study('Why?', {'A': fields}).configs(tiny.config())
  assert '\n' not in str(error.value)


def test_mistakes_in_studies_are_one_line():
  with pytest.raises(UserError, match='at least one cell'):
    Study('Why?', {})
  with pytest.raises(UserError, match="'a/b' must be named by letters"):
    Study('Why?', {'a/b': {}})
  with pytest.raises(UserError, match='must be a function, got 3'):
    Study('Why?', {'a': {}}, measures=(3,))
  with pytest.raises(UserError, match='the same folder'):
    Study('Why?', {'a b': {}, 'a_b': {}})


@pytest.mark.parametrize(
  'name',
  [
    *(path.stem for path in STUDIES.glob('*.py') if path.stem != '__init__'),
    'depth:8,110',
    'recipe:events',
  ],
)
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_installed_studies_have_right_cells_that_differ(name):
  study = configuration.study_from_file(name)
  base = configuration.from_file(study.config)
  configs = study.configs(with_fields(base, study.fields))
  for config in configs.values():
    config_lib.build_model(config, 10)
  prints = {config_lib.fingerprint(config) for config in configs.values()}
  assert len(prints) == len(configs) > 2


def test_what_is_no_study_is_said(tmp_path):
  with pytest.raises(UserError, match="did you mean 'levels'"):
    configuration.study_from_file('level')
  path = tmp_path / 'mine.py'
  path.write_text('def get_study():\n  return 3\n')
  with pytest.raises(UserError, match=r'get_study of .* returns no Study'):
    configuration.study_from_file(str(path))
  path.write_text('def get_config():\n  return 3\n')
  with pytest.raises(UserError, match='there is no function get_study'):
    configuration.study_from_file(str(path))


def test_the_study_of_the_document_is_one(tmp_path):
  text = (STUDIES.parents[1] / 'docs' / 'studies.md').read_text()
  (block,) = re.findall(r'```python\n(.*?get_study.*?)```', text, re.DOTALL)
  assert len(block.splitlines()) <= 10
  path = tmp_path / 'decay.py'
  path.write_text(block)
  study = configuration.study_from_file(str(path))
  configs = study.configs(configuration.from_file(study.config))
  assert [config.unit.decay for config in configs.values()] == [0.1, 0.25, 0.5]
