"""Published weights as a run, and a run as published weights."""

import dataclasses

import numpy as np
import pytest

from mlf_jax import UserError, layers, load, models
from mlf_jax.__main__ import main
from mlf_jax.interop import torch as reference
from mlf_jax.interop.reference_run import export_reference
from mlf_jax.layers import NORMALIZATIONS
from mlf_jax.training.config import build_model
from tests import quick
from tests.interop import networks
from tests.training import tiny

pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture
def published(tmp_path):
  """A file of arrays under the published names, and the network's variables."""
  config = tiny.config()
  model = build_model(config, 10)
  variables = quick.variables(model, np.zeros((1, 8, 8, 1), np.float32))
  path = tmp_path / 'published.npz'
  np.savez(path, **reference.to_reference(variables))
  return path, variables


def import_it(path, workdir, *fields):
  config = tiny.config()
  widths = f'--config.model.widths={config.model.widths}'
  thresholds = f'--config.unit.thresholds={config.unit.thresholds}'
  fields = widths, thresholds, '--config.model.time_steps=2', *fields
  return main(
    ['import-reference', str(path), '--workdir', str(workdir), *fields]
  )


def test_published_weights_become_a_run_and_weights_again(
  published, tmp_path, capsys
):
  path, variables = published
  workdir = tmp_path / 'run'
  assert import_it(path, workdir) == 0
  net = load(workdir)
  assert net.step == 0
  np.testing.assert_array_equal(
    net.variables['params']['voting']['kernel'],
    variables['params']['voting']['kernel'],
  )
  again = tmp_path / 'again.npz'
  assert (
    main(['export-reference', '--workdir', str(workdir), '--out', str(again)])
    == 0
  )
  with np.load(path) as before, np.load(again) as after:
    assert set(before) == set(after)
    for name in before:
      np.testing.assert_array_equal(before[name], after[name])
  capsys.readouterr()
  assert import_it(path, workdir) == 2
  assert 'holds a run; choose another --workdir' in capsys.readouterr().err


def test_weights_of_another_network_and_other_files_are_refused(
  published, tmp_path, capsys
):
  path, _ = published
  workdir = tmp_path / 'run'
  assert import_it(path, workdir, '--config.model.depth=14') == 2
  error = capsys.readouterr().err
  assert 'published.npz is of another network: layer1_1' in error
  (tmp_path / 'no.npz').write_bytes(b'nothing')
  assert import_it(tmp_path / 'no.npz', workdir) == 2
  assert 'no.npz cannot be read' in capsys.readouterr().err
  assert not workdir.exists()


@dataclasses.dataclass(frozen=True)
class MLF(layers.MLF):
  """A unit of another step under the same name."""

  def step(self, parameters, state, x_t):
    return super().step(parameters, state, 2 * x_t)


class OwnNetwork(models.SpikingResNet):
  pass


@pytest.mark.parametrize(
  ('attributes', 'message'),
  [
    ({'unit': MLF()}, 'not of MLF'),
    ({'residual': 'own'}, "'ds' and 'plain' can be written .* not 'own'"),
    ({'normalization': 'own'}, "'tdbn' alone, not 'own'"),
  ],
)
def test_what_the_published_code_lacks_is_refused(
  attributes, message, tmp_path, monkeypatch
):
  monkeypatch.setitem(models.BLOCKS, 'own', models.BLOCKS['ds'])
  monkeypatch.setitem(NORMALIZATIONS, 'own', NORMALIZATIONS['tdbn'])
  net = networks.make('images', **attributes)
  with pytest.raises(UserError, match=message):
    export_reference(net, tmp_path / 'weights.npz')
  assert not list(tmp_path.iterdir())


def test_a_network_of_ones_own_has_no_published_weights(tmp_path):
  net = networks.make('images')
  own = OwnNetwork((1, 1, 1), (4, 6, 8), 3, 5)
  net = dataclasses.replace(net, model=own)
  with pytest.raises(UserError, match='not OwnNetwork'):
    export_reference(net, tmp_path / 'weights.npz')
